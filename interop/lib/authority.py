"""A certificate authority for one run, by the openssl program.

`ca.pem` is the root that everybody trusts, `rogue-ca.pem` one that nobody does. A leaf NAME is `NAME.crt`, `NAME.key`.
Good leaves name their domain as dNSName, SRVName and SIP URI, and serve both ends of a connection. None carries an
id-on-xmppAddr: ejabberd 23.01 crashes on it.
"""
import os
import subprocess
import tempfile

from .places import EDGE_LINKS, SIP_DOMAIN, XMPP_DOMAIN


class Authority:
    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    @property
    def root(self):
        return self.path("ca.pem")

    def issue_all(self):
        """Everything that the peers and the cases use; what is there already stays."""
        self._root("ca", "tombolo interop root")
        self._root("rogue-ca", "tombolo interop root that nobody trusts")
        self.leaf(XMPP_DOMAIN, XMPP_DOMAIN)
        self.leaf(SIP_DOMAIN, SIP_DOMAIN)
        self.leaf("kamailio", SIP_DOMAIN, f"sip.{SIP_DOMAIN}")
        self.leaf("gateway-sip", SIP_DOMAIN)        # what phones and front ends see; the partners' key stays at the edge
        self.leaf("edge", f"edge.{SIP_DOMAIN}", addresses=EDGE_LINKS)     # the gateway dials it by address
        self.leaf("gateway", f"gateway.{SIP_DOMAIN}")
        for domain in (XMPP_DOMAIN, SIP_DOMAIN):
            self.leaf(f"{domain}.rogue", domain, issuer="rogue-ca")
        return self

    def _root(self, name, common_name):
        if not os.path.exists(self.path(f"{name}.pem")):
            self._openssl("req", "-x509", *self._key(name), "-sha256", "-days", "3650",
                          "-subj", f"/O=tombolo interop/CN={common_name}", "-out", self.path(f"{name}.pem"),
                          "-addext", "basicConstraints=critical,CA:TRUE",
                          "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def leaf(self, name, *domains, issuer="ca", addresses=()):
        if os.path.exists(self.path(f"{name}.crt")):
            return
        names = [f"DNS:{domain}" for domain in domains] + [f"URI:sip:{domains[0]}"]
        names += [f"otherName:1.3.6.1.5.5.7.8.7;IA5:_{service}.{domains[0]}" for service in ("xmpp-server", "xmpp-client")]
        names += [f"IP:{address}" for address in addresses]
        with tempfile.NamedTemporaryFile("w", suffix=".cnf", dir=self.folder) as extensions:
            extensions.write("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                             f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={','.join(names)}\n")
            extensions.flush()
            request = self.path(f"{name}.csr")
            self._openssl("req", "-new", *self._key(name), "-subj", f"/CN={domains[0]}", "-out", request)
            self._openssl("x509", "-req", "-sha256", "-days", "825", "-in", request, "-CAcreateserial",
                          "-CA", self.path(f"{issuer}.pem"), "-CAkey", self.path(f"{issuer}.key"),
                          "-extfile", extensions.name, "-out", self.path(f"{name}.crt"))
            os.remove(request)

    def _key(self, name):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.path(f"{name}.key")]

    def _openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")
