"""A collector of traces: `collector.py PORT`. OTLP over HTTP in protobuf, by the OpenTelemetry project's own messages.

Prints a line for each span, `{"span": {…}}`, with the key that its request came with.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def value(any_value):
    """The one value of an `AnyValue`."""
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # noqa: N802, the name is http.server's
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if (self.path, self.headers["Content-Type"]) != ("/v1/traces", "application/x-protobuf"):
            self.send_error(404)
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.say(attributes(resource.resource.attributes), span)
        payload = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def say(self, resource, span):
        told = {
            "trace": span.trace_id.hex(),
            "span": span.span_id.hex(),
            "parent": span.parent_span_id.hex(),
            "name": span.name,
            "kind": Span.SpanKind.Name(span.kind),
            "beginNs": span.start_time_unix_nano,
            "endNs": span.end_time_unix_nano,
            "status": Status.StatusCode.Name(span.status.code),
            "message": span.status.message,
            "attributes": attributes(span.attributes),
            "resource": resource,
            "apiKey": self.headers["Api-Key"],
        }
        print(json.dumps({"span": told}), flush=True)

    def log_message(self, *_):
        """Nothing but spans is printed."""


def main():
    port = int(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", port), Collector)
    print(json.dumps({"listens": port}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
