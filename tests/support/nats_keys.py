"""Creates the keys, tokens and credentials files of NATS without its tools."""

import base64
import json
import os
import secrets
from pathlib import Path
from typing import Any

import nkeys

_UNLIMITED = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
_STORAGE = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


def user_key() -> nkeys.KeyPair:
    return _key_pair(nkeys.PREFIX_BYTE_USER)


def _key_pair(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def public(key: nkeys.KeyPair) -> str:
    return str(key.public_key.decode())


def _token(signer: nkeys.KeyPair, subject: nkeys.KeyPair, **claims: Any) -> str:
    """A JWT in the format of NATS."""
    body = {"jti": secrets.token_hex(8), "iat": 0, "iss": public(signer), "sub": public(subject), "name": "fleet"}
    parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, {**body, "nats": {"version": 2, **claims}})
    signed = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    signature = base64.urlsafe_b64encode(signer.sign(signed.encode())).rstrip(b"=").decode()
    return f"{signed}.{signature}"


def _credentials(account: nkeys.KeyPair, path: Path) -> Path:
    """The file that `nsc` would write for a user of an account."""
    user = user_key()
    jwt = _token(account, user, type="user", pub={}, sub={}, **_UNLIMITED)
    seed = user._seed.decode()
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n",
        encoding="ascii",
    )
    return path


def operated(folder: Path) -> tuple[str, Path, Path]:
    """A server that trusts an operator: its configuration, valid credentials, and invalid ones."""
    operator = _key_pair(nkeys.PREFIX_BYTE_OPERATOR)
    system, account, stranger = (_key_pair(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(3))
    limits = {**_UNLIMITED, "wildcards": True}
    accounts = {
        public(system): _token(operator, system, type="account", limits=limits),
        public(account): _token(operator, account, type="account", limits=limits | _STORAGE),
    }
    config = (
        f"operator: {_token(operator, operator, type='operator')}\nsystem_account: {public(system)}\n"
        f"resolver: MEMORY\nresolver_preload: {json.dumps(accounts)}"
    )
    right, wrong = (_credentials(key, folder / f"{public(key)}.creds") for key in (account, stranger))
    return config, right, wrong
