"""SIP requests and responses as the phone of the tests reads and writes them; and digest answers."""
import hashlib
import re
import secrets

COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length",
           "c": "content-type", "o": "event", "e": "content-encoding", "k": "supported", "s": "subject",
           "u": "allow-events"}


class SipMessage:
    """Header names are lower case, in order of appearance."""

    def __init__(self, start, headers, body=b""):
        self.start, self.headers, self.body = start, list(headers), body

    @classmethod
    def parse(cls, data):
        head, _, body = data.partition(b"\r\n\r\n")
        lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace")).split("\r\n")
        headers = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers.append((COMPACT.get(name, name), value.strip()))
        return cls(lines[0], headers, body)

    def get(self, name, default=""):
        return next((value for key, value in self.headers if key == name), default)

    def all(self, name):
        """Every value of a header; several on one line are told apart (not for dates and digests)."""
        values = [value for key, value in self.headers if key == name]
        return [part.strip() for value in values for part in re.split(r",(?=\s*<)", value)]

    @property
    def is_response(self):
        return self.start.startswith("SIP/2.0")

    @property
    def status(self):
        return int(self.start.split()[1])

    @property
    def method(self):
        return self.get("cseq").split()[1] if self.is_response else self.start.split()[0]

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    @property
    def branch(self):
        return self.get("via").partition("branch=")[2].split(";")[0].split(",")[0]

    def encode(self):
        headers = [pair for pair in self.headers if pair[0] != "content-length"]
        headers.append(("content-length", str(len(self.body))))
        lines = [self.start] + [f"{name.title()}: {value}" for name, value in headers]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def tag_of(value):
    found = re.search(r";\s*tag=([^;>\s]+)", value)
    return found.group(1) if found else ""


def uri_of(value):
    found = re.search(r"<([^>]+)>", value)
    return found.group(1) if found else value.split(";")[0].strip()


class Digest:
    """Answers challenges (RFC 8760: SHA-256 or MD5, with or without qop) for one user."""

    HASHES = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}

    def __init__(self, user, password):
        self.user, self.password = user, password

    def answer(self, response, method, uri):
        """The header to send the request again with, or None where no challenge can be answered."""
        proxy = response.status == 407
        challenges = [value for name, value in response.headers
                      if name == ("proxy-authenticate" if proxy else "www-authenticate")]
        for challenge in challenges:
            parts = {name.lower(): quoted or bare
                     for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^",\s]+))', challenge)}
            algorithm = parts.get("algorithm", "MD5").upper()
            if algorithm in self.HASHES and "nonce" in parts:
                return ("proxy-authorization" if proxy else "authorization", self._credentials(parts, algorithm, method, uri))
        return None

    def _credentials(self, parts, algorithm, method, uri):
        def digest(text):
            return self.HASHES[algorithm](text.encode()).hexdigest()
        realm, nonce = parts.get("realm", ""), parts["nonce"]
        secret, request = digest(f"{self.user}:{realm}:{self.password}"), digest(f"{method}:{uri}")
        fields = [f'username="{self.user}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"', f"algorithm={algorithm}"]
        if "auth" in parts.get("qop", "").replace(" ", "").split(","):
            cnonce = secrets.token_hex(8)
            fields += ["qop=auth", "nc=00000001", f'cnonce="{cnonce}"',
                       f'response="{digest(f"{secret}:{nonce}:00000001:{cnonce}:auth:{request}")}"']
        else:
            fields.append(f'response="{digest(f"{secret}:{nonce}:{request}")}"')
        if "opaque" in parts:
            fields.append(f'opaque="{parts["opaque"]}"')
        return "Digest " + ", ".join(fields)


def pidf(entity, basic, note="", activity="", tuple_id="t1"):
    """A PIDF document (RFC 3863) with one tuple; `activity` is an RPID element such as `busy` or `away`."""
    person = (f'<dm:person id="p1"><rpid:activities><rpid:{activity}/></rpid:activities></dm:person>' if activity else "")
    return ('<?xml version="1.0" encoding="UTF-8"?>\r\n<presence xmlns="urn:ietf:params:xml:ns:pidf" '
            'xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" '
            f'entity="{entity}"><tuple id="{tuple_id}"><status><basic>{basic}</basic></status>'
            + (f"<note>{note}</note>" if note else "") + f"</tuple>{person}</presence>\r\n")
