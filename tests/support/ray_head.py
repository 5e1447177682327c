"""A Ray head of a test's own: own ports, own folder, protected by a token, ended by its pid."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_START_S = 180
_END_S = 60


class RayHead:
    """`with RayHead() as head: ...`; `head.environment` leads `ray` and `jobs.submit` to it, and holds its token."""

    def __init__(self, cpus: int = 2, gpu_nodes: int = 0):
        """
        Args:
            gpu_nodes: nodes that Ray's autoscaler may start, on this machine, each of which claims to have a GPU.
        """
        self._cpus = cpus
        self._gpu_nodes = gpu_nodes
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets' paths must be short
        token = self._folder / "token"
        token.write_text(secrets.token_hex(16))
        ports = _free_ports(5)
        self.address = f"http://127.0.0.1:{ports['dashboard']}"
        self.gcs_address = f"127.0.0.1:{ports['gcs']}"
        self._ports = ports
        without = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
        self.environment = {name: value for name, value in os.environ.items() if name not in without} | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_API_SERVER_ADDRESS": self.address,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_worker_niceness": "0",
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def __enter__(self) -> "RayHead":
        ports = self._ports
        self._log = (self._folder / "head.log").open("wb")
        command = [
            "ray", "start", "--head", "--block", "--disable-usage-stats", "--include-log-monitor=false",
            "--node-ip-address=127.0.0.1", f"--num-cpus={self._cpus}", f"--temp-dir={self._folder / 'ray'}",
            f"--port={ports['gcs']}", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports['dashboard']}",
            f"--dashboard-agent-listen-port={ports['agent']}", f"--ray-client-server-port={ports['client']}",
            f"--metrics-export-port={ports['metrics']}", "--min-worker-port=0", "--max-worker-port=0",
            f"--object-store-memory={100 * 2**20}",
        ]  # fmt: skip
        if self._gpu_nodes:
            command.append(f"--autoscaling-config={self._autoscaling()}")
        self._process = subprocess.Popen(
            command,
            env=self.environment,
            cwd=self._folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _autoscaling(self) -> Path:
        """The config of Ray's own autoscaler and of its provider for tests."""
        self.environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        node = {"resources": {"CPU": 2, "GPU": 1, "object_store_memory": 100 * 2**20}, "node_config": {}}
        config = {
            "cluster_name": "test",
            "max_workers": self._gpu_nodes,
            "provider": {
                "type": "fake_multinode",
                "gcs_address": self.gcs_address,
                "use_node_id_as_ip": True,  # they share this machine's
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": self._cpus}, "node_config": {}, "max_workers": 0},
                "gpu": node | {"min_workers": 0, "max_workers": self._gpu_nodes},
            },
            "head_node_type": "ray.head.default",
            # Of nodes elsewhere; the autoscaler asks for them all.
            "idle_timeout_minutes": 5,
            "auth": {},
            "file_mounts": {},
            "cluster_synced_files": [],
            "worker_setup_commands": [],
            "worker_start_ray_commands": [],
        }
        file = self._folder / "autoscaling.json"
        file.write_text(json.dumps(config))
        return file

    def _wait(self) -> None:
        """Until the job server and its agent answer."""
        deadline = time.monotonic() + _START_S
        while not (self._answers(self._ports["dashboard"]) and self._answers(self._ports["agent"])):
            said = (self._folder / "head.log").read_text(errors="replace")
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)

    def _answers(self, port: int) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5)
        except urllib.error.HTTPError:
            return True  # 401: it asks for the token; 404: the agent has no such page
        except OSError:
            return False
        return True

    def _end(self) -> None:
        """Ray's own end on SIGTERM, then whatever is left of its process group."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_ports(count: int) -> dict[str, int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
    return dict(zip(("gcs", "dashboard", "agent", "client", "metrics"), ports, strict=True))
