#!/usr/bin/env python3
"""A server of mailboxes: aiosmtpd, which anmin did not write.

    mailbox.py HOW PORT [CERT KEY]

HOW is "plain", "starttls" or "tls"; PORT 0 is a free one of loopback. With starttls and tls only the account "anmin" with the password
"demo-secret" may send, by TLS alone. Writes one JSON line to standard output when it listens, {"listening": PORT}, and one for each
message: {"for": [...], "message_id": ..., "thread": ..., "subject": ..., "text": ..., "headers": {...}, "account": ...}.

Told "VERB COUNT REPLY" on standard input, it answers the next COUNT commands MAIL, RCPT or messages (DATA) so, and says that
it did. It has no mailbox of "nobody".
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys
import threading

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

SAY = {}


def say(document):
    print(json.dumps(document, ensure_ascii=False), flush=True)


def instead(verb):
    """What to answer in place of the usual, as often as was asked for."""
    left, reply = SAY.get(verb, (0, None))
    if not left:
        return None
    SAY[verb] = (left - 1, reply)
    say({"answered": reply, "to": verb})
    return reply


class Mailboxes:
    async def handle_MAIL(self, server, session, envelope, address, options):
        reply = instead("MAIL")
        if reply is None:
            envelope.mail_from = address
            return "250 OK"
        return reply

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return f"550 5.1.1 <{address}> is not known here"
        reply = instead("RCPT")
        if reply is None:
            envelope.rcpt_tos.append(address)
            return "250 OK"
        return reply

    async def handle_DATA(self, server, session, envelope):
        reply = instead("DATA")
        if reply is not None:
            return reply
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        account = session.auth_data.login.decode() if session.authenticated else None
        say(
            {
                "for": envelope.rcpt_tos,
                "message_id": message["message-id"],
                "thread": message["references"],
                "subject": message["subject"],
                "text": message.get_content(),
                "headers": {name.lower(): str(value) for name, value in message.items()},
                "account": account,
                "defects": [repr(defect) for defect in message.defects],
            }
        )
        return "250 2.0.0 kept"


def may(server, session, envelope, mechanism, data):
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"anmin", b"demo-secret")
    if known:
        session.auth_data = data
    return AuthResult(success=known, handled=False, auth_data=data)


def listen(loop):
    for line in sys.stdin:
        verb, count, reply = line.strip().split(" ", 2)
        loop.call_soon_threadsafe(SAY.__setitem__, verb, (int(count), reply))


def main():
    how, port = sys.argv[1], int(sys.argv[2])
    tls = None
    if how != "plain":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[3], sys.argv[4])
    known = {} if how == "plain" else {"authenticator": may, "auth_required": True, "auth_require_tls": how == "starttls"}
    starttls = {"tls_context": tls, "require_starttls": True} if how == "starttls" else {}

    def session():
        return SMTP(Mailboxes(), hostname="mail.example.cn", ident="test", **known, **starttls)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(session, "127.0.0.1", port, ssl=tls if how == "tls" else None, reuse_address=True)
    )
    threading.Thread(target=listen, args=(loop,), daemon=True).start()
    say({"listening": server.sockets[0].getsockname()[1]})
    loop.run_forever()


main()
