"""The JSON documents of `comity transact`: what is wrong with one is said with its place."""

import re

import pytest

from comity.cli.document import read


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{", "Expecting"),
        ("\xff", "it is not UTF-8"),
        ("[]", "the document must be an object"),
        ('{"when": []}', "when is not known here"),
        ('{"then": {}}', "then must be a list"),
        ('{"then": [1]}', "then[0] must be an object"),
        ('{"then": [{}]}', "then[0] must have one of get, list, put, delete, increment"),
        ('{"then": [{"get": {"key": "a"}, "put": {}}]}', "then[0] must have one of"),
        ('{"then": [{"get": {"key": "a"}, "x": 1}]}', "then[0].x is not known here"),
        ('{"then": [{"get": {"key": 1}}]}', "then[0].get.key must be a string"),
        ('{"then": [{"get": {"kee": "a"}}]}', "then[0].get.key is missing"),
        ('{"then": [{"put": {"key": "a"}}]}', "then[0].put.value is missing"),
        ('{"then": [{"put": {"key": "a", "value": {"base64": "?"}}}]}', "then[0].put.value is wrong: it is not base64"),
        ('{"then": [{"put": {"key": "a", "value": NaN}}]}', "NaN is not JSON"),
        (
            '{"then": [{"put": {"key": "\\ud800", "value": 1}}]}',
            r"\ud800 stands for half a character: surrogates come in pairs",
        ),
        ('{"then": [{"delete": {}}]}', "then[0].delete must have one of key, prefix"),
        ('{"then": [{"increment": {"key": "a", "delta": 1.5}}]}', "delta must be a whole number"),
        ('{"then": [{"increment": {"key": "a", "delta": 9223372036854775808}}]}', "must fit into 64 bits"),
        ('{"conditions": [{"key": "a"}]}', "conditions[0] must have one of exists, value"),
        ('{"conditions": [{"key": "a", "exists": 1}]}', "conditions[0].exists must be true or false"),
        ('{"conditions": [{"key": "a", "version": true}]}', "conditions[0].version must be a whole number"),
        ('{"conditions": [{"key": "a", "version": 1, "operator": "~"}]}', "conditions[0].operator must be one of =="),
        ('{"conditions": [{"version": 1}]}', "conditions[0] must have one of key, prefix"),
    ],
)
def test_a_document_that_is_wrong(document: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        read(document.encode("latin-1"))


def test_an_empty_document() -> None:
    document = read(b"{}")
    assert (document.conditions, document.then, document.otherwise) == ([], [], [])
