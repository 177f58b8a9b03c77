"""Round trips, visits, and load: the agent beside ssh-agent, with the bare echoes as the floor."""

from processes import cpu, on_one_processor
from scene import US, Scene
from wire import Service, Talk, median_and_99th, rate, visits


def measure_wire(scene: Scene) -> None:
    """One connection that stays open, and one for each question; all on one processor."""
    services = _services(scene)
    talks = {name: Talk(service) for name, service in services.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in services}
    comings: dict[str, list[tuple[float, float]]] = {name: [] for name in services}
    with on_one_processor(*(service.pid for service in services.values())):
        for _ in range(scene.some(12, 40)):
            for name, talk in talks.items():
                times[name].append(median_and_99th(talk.times(500)))
                comings[name].append(median_and_99th(visits(services[name], 300)))
    for talk in talks.values():
        talk.close()
    bars = {"ssh-agent": 1.1}, {"ssh-agent": 1.5}
    for what, found, bar in (("GetToken, open connection", times, bars[0]), ("connect, ask, close", comings, bars[1])):
        scene.report.beside("wire", f"{what}, p50", "us", {n: [p50 for p50, _ in v] for n, v in found.items()}, bar)
        scene.report.beside("wire", f"{what}, p99", "us", {n: [p99 for _, p99 in v] for n, v in found.items()})


def _services(scene: Scene) -> dict[str, Service]:
    peers = scene.peers
    found = {
        US: scene.service,
        "ssh-agent": peers.ssh_agent,
        "asyncio echo": peers.asyncio_echo,
        "C echo": peers.c_echo,
    }
    return {name: service for name, service in found.items() if service is not None}


def measure_load(scene: Scene) -> None:
    """Clients that ask without a pause, in one process, wherever the kernel puts them; what that costs either side."""
    services = {name: service for name, service in _services(scene).items() if name != "asyncio echo"}
    for clients in (1, 8, 64, 512):
        rates: dict[str, list[float]] = {name: [] for name in services}
        costs: dict[str, list[float]] = {name: [] for name in services}
        ours: list[float] = []
        for _ in range(scene.some(3, 7)):
            for name, service in services.items():
                before = cpu(service.pid)
                found = rate(service, clients, scene.some(2, 10) / 10)
                rates[name].append(found.a_second / 1e3)
                costs[name].append((cpu(service.pid) - before) / found.requests * 1e5)
                if name == US:
                    ours.append(found.cpu / found.requests * 1e5)
        scene.report.beside("load", f"requests a second, {clients} clients", "k/s", rates, at_least=True)
        if clients in (1, 64):
            scene.report.beside("load", f"CPU s of 100,000 requests, {clients} clients, in the agent", "s", costs)
            scene.report.alone("load", f"CPU s of 100,000 requests, {clients} clients, in the client", "s", ours)
