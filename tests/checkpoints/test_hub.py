"""Names become directories; downloads are whole, pinned, resumed, or refused. Both hubs' real clients, a local server."""

import os
import socket
import subprocess
import sys
import time

import pytest

from helios.checkpoints import DownloadError, inspect, resolve
from helios.checkpoints.hub import RELEASED
from helios.errors import InputError
from tests.checkpoints.hub_server import Hub, files_of, running

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
DEFAULT_BRANCH = {"hf": "main", "modelscope": "master"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The server, and both clients pointed at it with an empty cache, online."""
    import modelscope_hub._download as modelscope
    import modelscope_hub._legacy_api as listing
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HELIOS_HUB", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("helios.checkpoints.transfer._BLOCK_BYTES", 10_000)
    monkeypatch.setattr("helios.checkpoints.transfer._WAIT_S", 0.0)
    monkeypatch.setattr(modelscope, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr(modelscope, "DOWNLOAD_RETRY_TIMES", 1)
    monkeypatch.setattr(listing, "REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    with running(Hub()) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        yield server


@pytest.fixture
def online(monkeypatch):
    """A function that turns the network off for both clients by stopping every new connection."""

    def off():
        def refuse(*args, **kwargs):
            raise AssertionError("the network was used")

        monkeypatch.setattr(socket, "create_connection", refuse)
        monkeypatch.setattr(socket.socket, "connect", refuse)

    return off


def publish(server, kind, checkpoint, name="me/tiny", revision=None, **extra):
    files = files_of(checkpoint) | {
        "transformer_init/diffusion_pytorch_model.safetensors": b"weights of an earlier stage",
        "transformer_ode/config.json": b"{}",
        "transformer/diffusion_pytorch_model.bin": b"the same in an older format",
        "README.md": b"text",
        **extra,
    }
    return server.publish(name, revision or DEFAULT_BRANCH[kind], files)


both = pytest.mark.parametrize("kind", ["hf", "modelscope"])


@both
def test_a_download_is_a_whole_checkpoint_without_side_weights(hub, tiny, kind):
    publish(hub, kind, tiny("distilled"))
    path = resolve("me/tiny", hub=kind)
    assert inspect(path).identity == inspect(tiny("distilled")).identity
    assert files_of(path).keys() == files_of(tiny("distilled")).keys()
    fetched = " ".join(request[1] for request in hub.fetched(""))
    assert "transformer_init" not in fetched and "transformer_ode" not in fetched and ".bin" not in fetched


@both
def test_a_second_call_transfers_nothing(hub, tiny, kind):
    publish(hub, kind, tiny("base"))
    first = resolve("me/tiny", hub=kind)
    hub.requests.clear()
    assert resolve("me/tiny", hub=kind) == first
    assert not hub.fetched("safetensors") and not hub.fetched("config.json")


@both
def test_an_interrupted_transfer_is_reported_and_then_resumed(hub, tiny, kind):
    publish(hub, kind, tiny("base"))
    size = (tiny("base") / WEIGHTS).stat().st_size
    hub.cut[WEIGHTS] = size // 8
    hub.outage.add(WEIGHTS)
    hub_name = {"hf": "Hugging Face", "modelscope": "ModelScope"}[kind]
    with pytest.raises(
        DownloadError, match=f"^the download of 'me/tiny' from {hub_name} broke off .*: run it again to"
    ):
        resolve("me/tiny", hub=kind)
    hub.cut.clear()
    hub.outage.clear()
    hub.requests.clear()
    path = resolve("me/tiny", hub=kind)
    assert (path / WEIGHTS).read_bytes() == (tiny("base") / WEIGHTS).read_bytes()
    pattern = "FilePath=transformer%2Fdiffusion" if kind == "modelscope" else WEIGHTS
    (resumed,) = hub.fetched(pattern)
    assert resumed[2] is not None, "the second call began at byte 0"
    start = int(resumed[2].removeprefix("bytes=").split("-")[0])
    assert size // 8 - 10_000 <= start < size


@both
def test_a_short_cut_is_healed_within_one_call(hub, tiny, kind):
    publish(hub, kind, tiny("base"))
    hub.cut[WEIGHTS] = (tiny("base") / WEIGHTS).stat().st_size * 2 // 3
    path = resolve("me/tiny", hub=kind)
    assert (path / WEIGHTS).read_bytes() == (tiny("base") / WEIGHTS).read_bytes()


@both
def test_a_revision_pins_the_files(hub, tiny, kind):
    old = publish(hub, kind, tiny("base"), revision="v1")
    publish(hub, kind, tiny("mid"))
    assert inspect(resolve("me/tiny", hub=kind)).variant == "mid"
    assert inspect(resolve("me/tiny", hub=kind, revision="v1")).variant == "base"
    assert inspect(resolve("me/tiny", hub=kind, revision=old)).variant == "base"


@both
def test_offline_uses_the_cache_and_no_network(hub, tiny, kind, online):
    publish(hub, kind, tiny("base"))
    expected = resolve("me/tiny", hub=kind)
    hub.requests.clear()
    online()
    assert resolve("me/tiny", hub=kind, offline=True) == expected
    assert hub.requests == []


@both
def test_offline_without_a_cache_is_refused(hub, tiny, kind, online):
    publish(hub, kind, tiny("base"))
    online()
    name = "me/tiny" if kind == "hf" else f"{kind}:me/tiny"
    message = f"^'me/tiny' is not complete on this machine and downloads are off: run `helios download {name}` with a n"
    with pytest.raises(InputError, match=message):
        resolve("me/tiny", hub=kind, offline=True)
    with pytest.raises(InputError, match="^'me/tiny@v2' is not complete on this machine"):
        resolve("me/tiny", hub=kind, revision="v2", offline=True)
    assert hub.requests == []


@both
def test_the_environment_turns_downloads_off(hub, tiny, kind, monkeypatch):
    publish(hub, kind, tiny("base"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="downloads are off"):
        resolve("me/tiny", hub=kind)
    assert hub.requests == []


@both
def test_an_unknown_model_is_refused(hub, kind):
    hub_name, login = {"hf": ("Hugging Face", "hf auth"), "modelscope": ("ModelScope", "modelscope")}[kind]
    message = (
        f"^there is no model 'me/nothing' on {hub_name}: check the name, or log in with `{login} login` if it is pri"
    )
    with pytest.raises(InputError, match=message):
        resolve("me/nothing", hub=kind)


@both
def test_an_unknown_revision_is_refused(hub, tiny, kind):
    publish(hub, kind, tiny("base"))
    with pytest.raises(InputError, match="'me/tiny'.* revision 'v9' on "):
        resolve("me/tiny", hub=kind, revision="v9")


def test_a_killed_process_loses_nothing(hub, tiny, tmp_path):
    """Whoever is killed inside a ten-gigabyte shard must not begin it again; the hub's own client would."""
    publish(hub, "hf", tiny("base"))
    hub.stall[WEIGHTS] = 2_500_000
    code = "from helios.checkpoints import resolve\nresolve('me/tiny')"
    place = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hf")}
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | place, stderr=subprocess.DEVNULL)
    try:
        part = wait_for(lambda: [file for file in tmp_path.rglob("*.part") if file.stat().st_size > 2_000_000])[0]
    finally:
        process.kill()
        process.wait()
    have = part.stat().st_size
    hub.stall.clear()
    hub.requests.clear()
    path = resolve("me/tiny")
    assert (path / WEIGHTS).read_bytes() == (tiny("base") / WEIGHTS).read_bytes()
    assert [request[2] for request in hub.fetched(WEIGHTS)] == [f"bytes={have}-"]
    assert not list(tmp_path.rglob("*.part"))


def wait_for(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_damaged_content_is_found_out_and_fetched_again(hub, tiny):
    publish(hub, "hf", tiny("base"))
    hub.damaged.add(WEIGHTS)
    with pytest.raises(DownloadError, match=f"broke off \\({WEIGHTS} arrived damaged\\): run it again"):
        resolve("me/tiny")
    hub.damaged.clear()
    assert inspect(resolve("me/tiny")).identity == inspect(tiny("base")).identity


def test_a_hub_that_is_down_does_not_hide_what_is_cached(hub, tiny, monkeypatch):
    publish(hub, "hf", tiny("base"))
    expected = resolve("me/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert resolve("me/tiny") == expected


def test_an_unknown_commit_is_refused(hub, tiny):
    publish(hub, "hf", tiny("base"))
    with pytest.raises(InputError, match="has no revision 'aaaa.*' on Hugging Face: name a branch, tag or commit"):
        resolve("me/tiny", revision="a" * 40)


def test_a_gated_model_is_refused(hub, tiny):
    publish(hub, "hf", tiny("base"))
    hub.gated.add("me/tiny")
    with pytest.raises(InputError, match="'me/tiny' is gated: accept its terms on its page, then log in with `hf auth"):
        resolve("me/tiny")


@both
def test_a_hub_that_cannot_be_reached(hub, kind, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", url)
    with pytest.raises(DownloadError, match="the download of 'me/tiny' from .* broke off"):
        resolve("me/tiny", hub=kind)


def test_prefix_and_environment_choose_the_hub(hub, tiny, monkeypatch):
    publish(hub, "hf", tiny("base"))
    publish(hub, "modelscope", tiny("mid"))
    assert inspect(resolve("me/tiny")).variant == "base"
    assert inspect(resolve("modelscope:me/tiny")).variant == "mid"
    monkeypatch.setenv("HELIOS_HUB", "modelscope")
    assert inspect(resolve("me/tiny")).variant == "mid"
    assert inspect(resolve("hf:me/tiny")).variant == "base"
    assert inspect(resolve("me/tiny", hub="hf")).variant == "base"


@both
def test_short_names_of_the_released_models(hub, tiny, kind):
    owner = {"hf": "BestWishYsh", "modelscope": "BestWishYSH"}[kind]
    for variant in ("base", "mid", "distilled"):
        publish(hub, kind, tiny(variant), name=f"{owner}/Helios-{variant.title()}")
        assert inspect(resolve(f"helios-{variant}", hub=kind)).variant == variant
    assert set(RELEASED) == {"helios-base", "helios-mid", "helios-distilled"}


def test_a_directory_wins_over_a_hub(hub, tiny, tmp_path, monkeypatch):
    (tmp_path / "me" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("me/tiny").resolve() == tmp_path / "me" / "tiny"
    assert resolve(tiny("base")) == tiny("base")
    assert resolve(str(tiny("base"))) == tiny("base")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (
            "a model",
            {},
            "^'a model' is neither a directory nor a model id: pass a checkpoint directory, ORG/NAME, mode",
        ),
        ("/no/such/place", {}, "^'/no/such/place' is neither a directory nor a model id"),
        (
            "helios-huge",
            {},
            "or one of helios-base, helios-mid, helios-distilled, small-base, small-mid, small-distilled$",
        ),
        ("modelscope:huge", {}, "^'modelscope:huge' is neither a directory nor a model id"),
        ("me/tiny", {"hub": "ftp"}, "^hub='ftp' is unknown: use hf or modelscope$"),
    ],
)
def test_names_that_cannot_be_one(hub, source, settings, message):
    with pytest.raises(InputError, match=message):
        resolve(source, **settings)
    assert hub.requests == []


def test_local_refusals(tmp_path):
    with pytest.raises(InputError, match="nowhere' is not a directory: pass a checkpoint directory or a hub id"):
        resolve(tmp_path / "nowhere")
    with pytest.raises(InputError, match="revision='v1' has no meaning for the directory .*: leave it out"):
        resolve(str(tmp_path), revision="v1")


def test_modelscope_without_its_client_says_how_to_install_it(hub, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "modelscope_hub", None)
    with pytest.raises(InputError, match=r'install it with `pip install "helios\[modelscope\]"`'):
        resolve("modelscope:me/tiny")
