#!/usr/bin/env python3
"""Signs as the command of a site does: bytes on standard input, base64 on standard output.

No SM2: the tests want to know that the bytes that were signed are those that arrived. The first argument is the key; a second, the
name of a file, makes it fail while that file is there.
"""

import base64
import hashlib
import hmac
import pathlib
import sys

if len(sys.argv) > 2 and pathlib.Path(sys.argv[2]).exists():
    sys.exit("the key is not in its slot")
print(base64.b64encode(hmac.new(sys.argv[1].encode(), sys.stdin.buffer.read(), hashlib.sha256).digest()).decode())
