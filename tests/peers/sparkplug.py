#!/usr/bin/env python3
"""Writes and reads Sparkplug B payloads with Google's protobuf, by the message of the Eclipse Sparkplug 3.0 specification
(section 6.4.1, package org.eclipse.tahu.protobuf), of which anmin's own reader knows nothing.

Takes one JSON document a line:

  {"t": 1772328600000, "seq": 0, "metrics": [{"name": "gas/lel", "alias": 1, "type": 9, "value": 25.5, "t": 1772328600000,
   "historical": true, "null": false}]}          answers {"hex": "0880..."}
  {"hex": "0880..."}                             answers with what is in it
"""

import json
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="org.eclipse.tahu.protobuf", syntax="proto2")
payload = file.message_type.add(name="Payload")


def fields(message, rows, oneof=None):
    for number, name, kind in rows:
        field = message.field.add(name=name, number=number, label=F.LABEL_OPTIONAL, type=kind)
        if oneof is not None:
            field.oneof_index = oneof


metric = payload.nested_type.add(name="Metric")
metric.oneof_decl.add(name="value")
fields(metric, [
    (1, "name", F.TYPE_STRING), (2, "alias", F.TYPE_UINT64), (3, "timestamp", F.TYPE_UINT64), (4, "datatype", F.TYPE_UINT32),
    (5, "is_historical", F.TYPE_BOOL), (6, "is_transient", F.TYPE_BOOL), (7, "is_null", F.TYPE_BOOL),
])
fields(metric, [
    (10, "int_value", F.TYPE_UINT32), (11, "long_value", F.TYPE_UINT64), (12, "float_value", F.TYPE_FLOAT),
    (13, "double_value", F.TYPE_DOUBLE), (14, "boolean_value", F.TYPE_BOOL), (15, "string_value", F.TYPE_STRING),
    (16, "bytes_value", F.TYPE_BYTES),
], oneof=0)
fields(payload, [(1, "timestamp", F.TYPE_UINT64), (3, "seq", F.TYPE_UINT64), (4, "uuid", F.TYPE_STRING), (5, "body", F.TYPE_BYTES)])
payload.field.add(
    name="metrics", number=2, label=F.LABEL_REPEATED, type=F.TYPE_MESSAGE, type_name=".org.eclipse.tahu.protobuf.Payload.Metric")

pool = descriptor_pool.DescriptorPool()
pool.Add(file)
Payload = message_factory.GetMessageClass(pool.FindMessageTypeByName("org.eclipse.tahu.protobuf.Payload"))

# The field of each datatype, and the bits of what is negative.
INTS = {1: 32, 2: 32, 3: 32, 5: 32, 6: 32, 7: 32}
LONGS = {4: 64, 8: 64, 13: 64}


def put(into, row):
    kind, value = row.get("type", 0), row["value"]
    if kind in INTS:
        into.int_value = value % (1 << 32)
    elif kind in LONGS:
        into.long_value = value % (1 << 64)
    elif kind == 9:
        into.float_value = value
    elif kind == 10:
        into.double_value = value
    elif kind == 11:
        into.boolean_value = value
    else:
        into.string_value = value


for line in sys.stdin:
    said = json.loads(line)
    if "hex" in said:
        read = Payload.FromString(bytes.fromhex(said["hex"]))
        rows = [{"name": of.name, "type": of.datatype, "value": getattr(of, of.WhichOneof("value"))} for of in read.metrics]
        print(json.dumps({"t": read.timestamp, "metrics": rows}), flush=True)
        continue
    out = Payload()
    if "t" in said:
        out.timestamp = said["t"]
    if "seq" in said:
        out.seq = said["seq"]
    for row in said.get("metrics", []):
        of = out.metrics.add()
        if "name" in row:
            of.name = row["name"]
        if "alias" in row:
            of.alias = row["alias"]
        if "t" in row:
            of.timestamp = row["t"]
        # Data may leave the datatype out: it is written only where a name introduces the metric.
        if "type" in row and "name" in row:
            of.datatype = row["type"]
        if row.get("historical"):
            of.is_historical = True
        if row.get("null"):
            of.is_null = True
        else:
            put(of, row)
    print(json.dumps({"hex": out.SerializeToString().hex()}), flush=True)
