"""The two ends of HTTPS as the standard library of Python has them: strict about certificates, and nobody of us wrote them.

    https.py get URL CA [CERT KEY]    asks once, believing the authority in CA alone, and showing a certificate of its own if it
                                      has one; says "done STATUS" or "done failed: WHY"
    https.py serve CERT KEY [CA]      says "ready PORT", then "got N bytes at PATH" of each POST, which it answers with 204; of
                                      clients it wants a certificate by the authority in CA, where one is given
"""

import http.server
import ssl
import sys
import urllib.error
import urllib.request


def get(url, ca, *own):
    trust = ssl.create_default_context(cafile=ca)
    if own:
        trust.load_cert_chain(*own)
    try:
        with urllib.request.urlopen(url, context=trust, timeout=20) as answer:
            said = answer.status
    except urllib.error.HTTPError as answer:
        said = answer.code
    except (urllib.error.URLError, OSError) as error:
        said = f"failed: {error}"
    print(f"done {said}", flush=True)


class Taker(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        print(f"got {len(body)} bytes at {self.path}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def serve(certificate, key, clients=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    if clients:
        tls.load_verify_locations(clients)
        tls.verify_mode = ssl.CERT_REQUIRED
    # In the connection's own thread: who speaks no TLS holds up nobody.
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"ready {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    {"get": get, "serve": serve}[sys.argv[1]](*sys.argv[2:])
