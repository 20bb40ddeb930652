/** Bounds what grpc-js would do without end: it waits for ever for a machine that takes a connection and says nothing. */

import type { Socket } from 'node:net';

import type { ChannelCredentials } from '@grpc/grpc-js';

const SILENT_MS = 20_000; // as gRPC elsewhere gives up an attempt to connect

type Create = ChannelCredentials['_createSecureConnector'];

/**
 * The same credentials, by which no such connection stays open, nor keeps a process from its end. With a grpc-js that has
 * no more what is private to it, connections are as it makes them.
 */
export function patient<T extends ChannelCredentials>(credentials: T): T {
  if (typeof credentials._createSecureConnector !== 'function') return credentials;
  const create: Create = credentials._createSecureConnector.bind(credentials);
  credentials._createSecureConnector = (...given: Parameters<Create>) => {
    const connector = create(...given);
    const connect = connector.connect.bind(connector);
    connector.connect = (socket: Socket) => {
      socket.unref(); // grpc-js does so after the handshake, and holds it again for each call
      socket.setTimeout(SILENT_MS, () => {
        if (socket.bytesRead === 0) socket.destroy(new Error('it does not answer'));
        else socket.setTimeout(0);
      });
      return connect(socket);
    };
    return connector;
  };
  return credentials;
}
