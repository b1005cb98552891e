#!/usr/bin/env python3
"""Print the address under which phones and laptops of the tailnet reach dubbing-web, or what keeps them from it.

scripts/remote/tailscale_check.py          exit code 0: it answers there; 1: it does not, and the message says what to do

PORT comes from the environment, else from .env, else it is 8000. With DUBBING_WEB_SOCKET the way by `tailscale serve` is
looked at instead, and its https address printed. Needs nothing but Python, so it runs before any set-up.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

ANSWER_S = 10
STATES = {
    "NeedsLogin": ("Tailscale is logged out", "sudo tailscale up"),
    "Stopped": ("Tailscale is switched off", "sudo tailscale up"),
    "NeedsMachineAuth": (
        "this machine waits for approval in the tailnet",
        "Approve it: https://login.tailscale.com/admin/machines",
    ),
    "Starting": ("Tailscale is still starting", "Wait a moment, then run this again."),
    "NoState": ("Tailscale has not started yet", "sudo systemctl restart tailscaled"),
}
"""BackendState of `tailscale status --json` -> what is wrong, what to do; `Running` is right."""


class TroubleError(Exception):
    """Something is wrong; the second argument says what to do."""


def main() -> int:
    try:
        if given := setting("DUBBING_WEB_SOCKET"):
            path = str(Path(given).expanduser())
            name = tailnet_name()
            print(f"https://{name}/ui/login", flush=True)
            reach_socket(path)
            look_at_serve(path)
        else:
            where = f"{tailnet_address()}:{port()}"
            print(f"http://{where}/ui/login", flush=True)
            reach(where)
    except TroubleError as trouble:
        problem, advice = trouble.args
        print(f"tailscale_check: {problem}.\n                 {advice}", file=sys.stderr)
        return 1
    print("tailscale_check: the server answers; open the address on a device of the same tailnet.", file=sys.stderr)
    return 0


def setting(key: str) -> str:
    text = os.environ.get(key, "")
    if not text and Path(".env").is_file():
        lines = Path(".env").read_text(encoding="utf-8").splitlines()
        text = next((line.partition("=")[2].strip(" \"'") for line in lines if line.startswith(f"{key}=")), "")
    return text


def port() -> int:
    text = setting("PORT")
    if text and not (text.isdecimal() and 0 < int(text) < 65536):
        raise TroubleError(f"PORT is {text!r}, which is no port", "Choose one from 1 to 65535, or unset it for 8000.")
    return int(text or 8000)


def running() -> dict[str, object]:
    """What a Tailscale that runs says of itself."""
    if shutil.which("tailscale") is None:
        raise TroubleError(
            "Tailscale is not installed here (there is no program tailscale)",
            "Install it from https://tailscale.com/download, then: sudo tailscale up",
        )
    status = read_status()
    state = str(status.get("BackendState", ""))
    if state != "Running":
        raise TroubleError(*STATES.get(state, (f"Tailscale is in the state {state or 'unknown'}", "sudo tailscale up")))
    return status


def tailnet_address() -> str:
    """The IPv4 address of this machine in the tailnet."""
    status = running()
    candidates = [*ask("ip", "-4").stdout.split(), *(status.get("TailscaleIPs") or [])]
    for candidate in candidates:
        try:
            return str(IPv4Address(candidate))
        except AddressValueError:
            continue
    raise TroubleError(
        "Tailscale gave this machine no IPv4 address",
        "Look at `tailscale status`; the tailnet may have IPv4 switched off in its access controls.",
    )


def tailnet_name() -> str:
    """The name of this machine in the tailnet, which its certificate is for."""
    me = running().get("Self")
    name = str(me.get("DNSName", "")).rstrip(".") if isinstance(me, dict) else ""
    if not name:
        raise TroubleError(
            "this machine has no name in the tailnet", "Switch MagicDNS on: https://login.tailscale.com/admin/dns"
        )
    return name


def reach_socket(path: str) -> None:
    """Ask the server for a sign of life over its socket."""
    begin = f"Start the server: DUBBING_WEB_SOCKET={path} dubbing-web"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(ANSWER_S)
            caller.connect(path)
            caller.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: caller.recv(4096), b""))
    except PermissionError:
        raise TroubleError(
            f"the socket {path} may not be opened by this user", "Run this as the user that runs the server."
        ) from None
    except OSError as error:
        raise TroubleError(f"nothing answers at {path} ({error.strerror or error})", begin) from None
    if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"ok\n"):
        raise TroubleError(f"something else than dubbing-web answers at {path}", "Choose another path for both.")


def look_at_serve(path: str) -> None:
    """Whether `tailscale serve` leads to the socket, and to the tailnet alone."""
    try:
        found = json.loads(ask("serve", "status", "--json").stdout or "{}")
    except ValueError:
        found = {}
    place = os.path.realpath(path)
    if f"unix:{place}" not in json.dumps(found):
        raise TroubleError("`tailscale serve` does not lead to the socket", f"sudo tailscale serve --bg unix:{place}")
    if any((found.get("AllowFunnel") or {}).values()):
        raise TroubleError("Funnel opens this machine to the internet", "sudo tailscale funnel reset")


def read_status() -> dict[str, object]:
    done = ask("status", "--json")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    if "denied" in said.lower():
        raise TroubleError(f"Tailscale does not talk to this user ({said})", "sudo tailscale set --operator=$USER")
    raise TroubleError(f"Tailscale's service does not run ({said})", "sudo systemctl enable --now tailscaled")


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["tailscale", *arguments], capture_output=True, text=True, timeout=ANSWER_S, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise TroubleError(
            f"Tailscale's service did not answer within {ANSWER_S} s", "sudo systemctl restart tailscaled"
        ) from None
    except OSError as error:
        raise TroubleError(f"tailscale cannot be run ({error.strerror})", "Install it again.") from None


def reach(where: str) -> None:
    """Ask the server for a sign of life under its tailnet address, past any proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    begin = "REMOTE_ACCESS_MODE=tailscale HOST=0.0.0.0 dubbing-web"
    try:
        with opener.open(f"http://{where}/livez", timeout=ANSWER_S) as answer:
            alive = answer.read(16) == b"ok\n"
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (400, 403):
                raise TroubleError(
                    f"the server at {where} runs but turns the tailnet away ({error.code})", f"Start it so: {begin}"
                ) from None
        alive = False
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise TroubleError(
            f"nothing answers at {where} ({reason})",
            f"Start the server: {begin}\n                 If it runs already, it listens on this machine alone, or a "
            "firewall keeps tailscale0 out.",
        ) from None
    if not alive:
        raise TroubleError(f"something else than dubbing-web answers at {where}", "Choose another PORT for both.")


if __name__ == "__main__":
    sys.exit(main())
