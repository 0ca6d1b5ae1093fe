"""An authority that signs certificates for tests, by the program openssl."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Signed:
    """A certificate and its private key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Its files are in a folder of its own."""

    def __init__(self, folder: Path, name: str = "test authority"):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "ca.pem"
        self.key = folder / "ca.key"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-keyout", self.key, "-out", self.certificate),
            *("-subj", f"/CN={name}", "-days", "30"),
        )

    def sign(self, name: str, names: str, days: int = 30) -> Signed:
        """`names` as in `DNS:localhost,IP:127.0.0.1`; negative `days` have gone by."""
        request = self.folder / f"{name}.csr"
        signed = Signed(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        _openssl(
            *("req", *_NEW_KEY, "-keyout", signed.key, "-out", request, "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName={names}"),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-out", signed.certificate),
            *("-CA", self.certificate, "-CAkey", self.key, "-copy_extensions", "copy"),
            *("-days", str(days)),
        )
        return signed


def _openssl(*arguments: object) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise FileNotFoundError("openssl is not installed: apt-get install openssl")
    result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, f"openssl {arguments[0]}:\n{result.stderr}"
