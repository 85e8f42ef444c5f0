"""The journal entries in a real bundle are those that `history --check` compares."""

from __future__ import annotations

from tests.conftest import Project


def test_journal_agrees_with_real_bundle_until_it_is_written_anew(tiny: Project) -> None:
    promoted = tiny.lyra("build", "test", "promote")
    assert promoted.code == 0, promoted.text
    (bundle,) = tiny.bundles()
    checked = tiny.lyra("history", "--check")
    assert checked.code == 0 and f"the same as in bundle {bundle.name} (not signed)" in checked.out, checked.text
    for file in tiny.state.glob("tiny-*/journal.*"):
        file.rename(file.with_name(f"old.{file.name}"))
    assert tiny.lyra("history").code == 0
    lost = tiny.lyra("history", "--check")
    assert lost.code == 5 and f"bundle {bundle.name} (not signed) holds" in lost.err, lost.text
    for file in tiny.state.glob("tiny-*/old.journal.*"):
        file.rename(file.with_name(file.name.removeprefix("old.")))
