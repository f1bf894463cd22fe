import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.recipe_files import RecipeError
from manifests.store import Store
from stages import exclusion_lists
from stages.exclusion_lists import digest_of, plain_host, read_list

ID, SHA256 = "0123456789abcdef" * 2, "0123456789abcdef" * 4


@pytest.fixture
def listed(tmp_path):
    """Write a list and return its entries."""

    def write(kind, content):
        (tmp_path / "list.txt").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return read_list(Store(str(tmp_path)), kind, "list.txt").to_list()

    return write


@pytest.mark.parametrize(
    ("kind", "text", "entry"),
    [
        ("ids", ID, ID),
        ("ids", ID.upper(), ID),
        ("ids", f"cc3m_{ID}.jpg", f"cc3m_{ID}"),
        ("ids", "fmow_val_port_1_0_rgb.jpg", "fmow_val_port_1_0_rgb"),
        ("ids", "my_own_source_x.y.JPEG", "my_own_source_x.y"),
        ("urls", "http://a.org/x#part", "http://a.org/x#part"),
        ("urls", "  HTTPS://A.org/\u00e9 \u4f8b.jpg\t", "HTTPS://A.org/\u00e9 \u4f8b.jpg"),
        ("urls", "http://a.org/*", "http://a.org/*"),
        ("urls", "fmow:train/port/port_1/port_1_0_rgb.jpg", "fmow:train/port/port_1/port_1_0_rgb.jpg"),
        ("hosts", "Example.ORG.", "example.org"),
        ("hosts", "b\u00fccher.example", "xn--bcher-kva.example"),
        ("hosts", "XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("hosts", "b\u00fccher\u3002example", "xn--bcher-kva.example"),
        ("hosts", "\uff45xample.org", "example.org"),
        ("hosts", "10.0.0.1", "10.0.0.1"),
        ("hosts", "[2001:DB8:0::1]", "2001:db8::1"),
        ("hosts", "my_host", "my_host"),
        ("sha256", SHA256.upper(), SHA256),
    ],
)
def test_an_entry_is_read_in_the_spelling_that_is_compared(listed, kind, text, entry):
    assert listed(kind, f"{text}\n") == [entry]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("ids", ID[1:], "neither a sample id"),
        ("ids", SHA256, r"exclude\.sha256"),
        ("ids", "http://a.org/a_b.jpg", r"exclude\.urls"),
        ("ids", "a b_c.jpg", "nor the name of a released image"),
        ("ids", "cc3m_.jpg", "nor the name of a released image"),
        ("ids", "cc3m_x", "nor the name of a released image"),
        ("ids", "_.", "neither"),
        ("urls", "example.org", r"with its scheme; hosts go into exclude\.hosts"),
        ("urls", "//example.org/x", "no whole url"),
        ("urls", "example.org:80/x", "no whole url"),
        ("urls", "http:", "no whole url"),
        ("hosts", "http://Example.org/x", "write example.org$"),
        ("hosts", "example.org/x", "write example.org$"),
        ("hosts", "example.org:443", "write example.org$"),
        ("hosts", "*.example.org", r"write example\.org: its subdomains are meant with it"),
        ("hosts", ".example.org", r"write example\.org: its subdomains"),
        ("hosts", "not a host", "write one host a line"),
        ("hosts", "a..b", "write one host a line"),
        ("hosts", "-a.org", "write one host a line"),
        ("hosts", "a" * 254, "write one host a line"),
        ("hosts", "::1::", "write one host a line"),
        ("hosts", "http://[::1", "write one host a line"),
        ("sha256", ID, "64 hex digits a line"),
        ("sha256", f"{SHA256}  image.jpg", "64 hex digits a line"),
        ("sha256", f"sha256:{SHA256}", "64 hex digits a line"),
    ],
)
def test_what_is_no_entry_is_named_with_file_and_line_and_what_to_do(listed, kind, text, said):
    with pytest.raises(RecipeError, match=said) as caught:
        listed(kind, f"# one\n\n{text}\n")
    assert str(caught.value).startswith(f"exclude.{kind}: list.txt, line 3: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350


def test_a_list_has_comments_blank_lines_and_any_line_end(listed):
    text = f"\ufeff# what and why\r\n\r\n  # more\n{SHA256}\r\n\t\n{SHA256.upper()}"
    assert listed("sha256", text) == [SHA256]
    assert listed("urls", "http://a.org/1 # no comment") == ["http://a.org/1 # no comment"]


@pytest.mark.parametrize("content", ["", "\n", "\ufeff", "# nothing yet", " \r\n#\n"])
def test_a_list_may_be_empty(listed, content):
    assert listed("ids", content) == []


def test_only_utf8_is_text(listed):
    with pytest.raises(RecipeError, match=r"list\.txt, line 2: is no UTF-8; save the list as UTF-8 text"):
        listed("urls", "http://a.org/\nhttp://a.org/\u00e9".encode("latin-1"))
    with pytest.raises(RecipeError, match="line 1: is no UTF-8"):
        listed("hosts", "a.org".encode("utf-16"))


@pytest.mark.parametrize("after", ["\n", "", "\nhttp://b.org/\n"])
def test_a_line_has_a_bound(listed, after):
    fits = "http://a.org/" + "x" * (exclusion_lists.MAX_LINE_BYTES - 13)
    assert fits in listed("urls", fits + after)
    with pytest.raises(RecipeError, match=r"line 2: is longer than 64 KiB; write one entry a line"):
        listed("urls", f"#\n{fits}x{after}")


def test_a_file_has_a_bound_and_lines_may_cross_blocks(listed, monkeypatch):
    urls = sorted(f"http://a.org/{n}" for n in range(50))
    text = "\n".join(urls)
    for block_bytes in (1, 3, 7, 64, len(text), len(text) + 1):
        monkeypatch.setattr(exclusion_lists, "_BLOCK_BYTES", block_bytes)
        assert listed("urls", text) == urls
    monkeypatch.setattr(exclusion_lists, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(exclusion_lists, "MAX_FILE_BYTES", len(text) - 3)
    assert listed("urls", text) == urls
    with pytest.raises(RecipeError, match=r"list\.txt: is larger than"):
        listed("urls", f"{text}#")


def test_a_line_without_end_is_not_read_to_its_end(listed, monkeypatch):
    """Nothing but zero bytes, as a file with a hole has them."""
    monkeypatch.setattr(exclusion_lists, "_BLOCK_BYTES", 1 << 17)
    with pytest.raises(RecipeError, match="line 1: is longer"):
        listed("ids", bytes(1 << 20))


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(RecipeError, match=r"exclude\.ids: no\.txt: no such file; .* below the workdir"):
        read_list(store, "ids", "no.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecipeError, match=r"exclude\.ids: folder: cannot be read"):
        read_list(store, "ids", "folder")
    with pytest.raises(RecipeError, match=r"exclude\.ids: nowhere://x: cannot be read: Protocol not known"):
        read_list(store, "ids", "nowhere://x")


def test_a_list_lies_below_the_workdir_or_anywhere(tmp_path):
    store = Store("memory://lists/workdir")
    store.replace("lists/hosts.txt", b"a.org\n")
    (tmp_path / "hosts.txt").write_text("b.org\n")
    assert read_list(store, "hosts", "lists/hosts.txt").to_list() == ["a.org"]
    assert read_list(store, "hosts", "memory://lists/workdir/lists/hosts.txt").to_list() == ["a.org"]
    assert read_list(store, "hosts", str(tmp_path / "hosts.txt")).to_list() == ["b.org"]


@given(st.lists(st.from_regex(r"\A[0-9a-f]{32}\Z"), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_digest_is_of_the_entries_and_of_nothing_else(ids, random):
    store = Store("memory://digests")
    store.replace("one", "\n".join(ids).encode())
    store.replace(
        "other", "".join(f"# {n}\r\n {i.upper()}\r\n" for n, i in enumerate(random.sample(ids, len(ids)))).encode()
    )
    digest = digest_of(read_list(store, "ids", "one"))
    assert len(digest) == 64
    assert digest_of(read_list(store, "ids", "other")) == digest
    store.replace("more", "\n".join([*ids, f"cc3m_{ids[0]}.jpg"]).encode())
    assert digest_of(read_list(store, "ids", "more")) != digest


def test_a_long_list_has_one_digest_however_it_is_digested(monkeypatch):
    entries = pl.Series(f"http://a.org/{n}" for n in range(1000))
    whole = digest_of(entries)
    monkeypatch.setattr(exclusion_lists, "_DIGESTED_ENTRIES", 7)
    assert digest_of(entries) == whole


@given(st.text(st.characters(exclude_characters="%"), max_size=20))
def test_what_is_no_host_is_compared_as_it_stands(host):
    assert plain_host(host).isascii() or plain_host(host) == host.lower()


@given(st.sampled_from(["ids", "urls", "hosts", "sha256"]), st.binary(max_size=60))
def test_any_bytes_are_entries_or_refused(kind, content):
    store = Store("memory://any")
    store.replace("list", content)
    try:
        entries = read_list(store, kind, "list").to_list()
    except RecipeError:
        return
    assert len(entries) <= content.count(b"\n") + 1
    store.replace("list", "\n".join(entries).encode() if kind != "ids" else b"")
    if kind != "ids":  # names of images are read without their suffix
        assert read_list(store, kind, "list").to_list() == entries
