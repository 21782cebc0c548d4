#!/usr/bin/env python3
"""Cuts the cases that Ebb's own functions can be asked out of Wycheproof's files. Run once; its output is
committed.

    python3 tests/data/make_wycheproof.py SOURCE_DIR

SOURCE_DIR is `testvectors_v1` of the repository C2SP/wycheproof. A line of the output is one case: its number,
its result, and its values as hexadecimal digits (`-`: empty).
"""

import json
import pathlib
import sys

# File, values kept, and which cases: what is left out has no way into the functions under test.
TABLES = {
    # Signatures of another length are no signatures to the type that holds one.
    "ed25519": ("ed25519", ["publicKey", "msg", "sig"], lambda case: len(case["sig"]) == 128),
    # Keys of 256 bits, nonces of 96, tags of 128.
    "aes_256_gcm": (
        "aes_gcm",
        ["key", "iv", "aad", "msg", "ct", "tag"],
        lambda case: (case["keySize"], case["ivSize"], case["tagSize"]) == (256, 96, 128),
    ),
    # All but the longest outputs, whose length is no argument of ours, and those that are longer still.
    "hkdf_sha256": ("hkdf_sha256", ["ikm", "salt", "info", "okm"], lambda case: case["size"] <= 128),
    # Points as the protocol has them, uncompressed; and others, to be refused.
    "ecdh_p256": ("ecdh_secp256r1_ecpoint", ["public", "private", "shared"], lambda case: True),
}


def main():
    source = pathlib.Path(sys.argv[1])
    target = pathlib.Path(__file__).parent / "wycheproof"
    for name, (file, fields, kept) in TABLES.items():
        lines = []
        for group in json.loads((source / f"{file}_test.json").read_text())["testGroups"]:
            shared = {"publicKey": group.get("publicKey", {})} if file == "ed25519" else group
            for case in group["tests"]:
                case = {**shared, **case}
                if "publicKey" in case:
                    case["publicKey"] = case["publicKey"]["pk"]
                if kept(case):
                    values = [case[field] or "-" for field in fields]
                    lines.append(" ".join([str(case["tcId"]), case["result"], *values]))
        (target / f"{name}.txt").write_text("\n".join(lines) + "\n")


main()
