"""The authority that signs PostgreSQL's certificate, the middles' and the person's where no Postern is between: all ECDSA P-256."""

from machine.scratch import run

DAYS = "2"
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """`ca.crt`, and leaves that it has signed, in a directory."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        run(["openssl", "req", "-x509", *NEW_KEY, "-sha256", "-days", DAYS, "-subj", "/CN=bench authority",
             "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
             "-keyout", directory / "ca.key", "-out", directory / "ca.crt"])  # fmt: skip

    @property
    def root(self):
        return self.directory / "ca.crt"

    def sign(self, name, common_name, alternative_names):
        """NAME.crt and NAME.key, for both ends of TLS; their path without the ending."""
        prefix = self.directory / name
        extensions = prefix.with_suffix(".ext")
        extensions.write_text(
            f"basicConstraints=CA:FALSE\nsubjectAltName={alternative_names}\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        request = prefix.with_suffix(".csr")
        run(["openssl", "req", *NEW_KEY, "-subj", f"/CN={common_name}", "-keyout", prefix.with_suffix(".key"), "-out", request])
        run(["openssl", "x509", "-req", "-in", request, "-CA", self.root, "-CAkey", self.directory / "ca.key", "-CAcreateserial",
             "-days", DAYS, "-sha256", "-extfile", extensions, "-out", prefix.with_suffix(".crt")])  # fmt: skip
        return prefix
