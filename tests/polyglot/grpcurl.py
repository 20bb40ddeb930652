"""As much of grpcurl as the page of languages uses, by reflection as well: for machines that do not have it.

python -m tests.polyglot.grpcurl -plaintext [-cacert FILE] [-H HEADER] [-max-time SECONDS] -d JSON ADDRESS METHOD
"""

import argparse
import sys
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> int:
    """0, or 64 and the status, as grpcurl has it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-plaintext", action="store_true")
    parser.add_argument("-cacert", type=Path)
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-max-time", type=float)
    parser.add_argument("-d", required=True)
    parser.add_argument("address")
    parser.add_argument("method")
    said = parser.parse_args()
    if said.plaintext:
        channel = grpc.insecure_channel(said.address)
    else:
        channel = grpc.secure_channel(said.address, grpc.ssl_channel_credentials(said.cacert.read_bytes()))
    with channel:
        service, _, name = said.method.partition("/")
        described = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(service)
        method = described.FindMethodByName(name)
        request = json_format.Parse(said.d, GetMessageClass(method.input_type)())
        answers: grpc.UnaryStreamMultiCallable[Message, Message] = channel.unary_stream(
            f"/{said.method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        split = (header.partition(":") for header in said.H)
        metadata = tuple((name, value.strip()) for name, _, value in split)
        try:
            for answer in answers(request, metadata=metadata, timeout=said.max_time):
                print(json_format.MessageToJson(answer), flush=True)
        except grpc.RpcError as error:
            code = error.code()
            print(f"ERROR:\n  Code: {code.name}\n  Message: {error.details()}", file=sys.stderr)
            return 64 + int(code.value[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
