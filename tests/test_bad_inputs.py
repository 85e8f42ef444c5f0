"""Every bad input that was thought of beforehand has a test, and so has every fault of the program's own.

The inputs are numbered; a number is held by tests, or is not applicable, for a reason that is written beside it. What
each test asks is the same: an exit code other than 0, a text that names file or key and says what to do, no traceback.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from lyra_tasks import errors
from lyra_tasks.engine.client.connect import RemoteEngineError, UnsupportedEngineError
from lyra_tasks.errors import LyraError

REPOSITORY = Path(__file__).parents[1]
NOT_APPLICABLE = "not applicable: "

FILE = "config/test_problems.py::test_invalid_document_is_refused"
PROBLEM = "config/test_problems.py::test_problem_names_line_key_and_allowed_values"
PLAIN = "config/test_find.py::test_file_without_plain_text_is_refused"
PATHS = "config/test_paths.py::test_"
GIT = "versions/test_git.py::test_"
RELEASING = "release/test_releasing.py::test_"
LAB = "engine/test_faults_lab.py::test_"
PROMOTE = "engine/test_faults_promote.py::test_"
ENGINE = "engine/test_faults_engine.py::test_"
CLEAN = "engine/test_faults_clean.py::test_"
WORD = "tasks/test_task.py::test_"

INPUTS: list[tuple[int, str, tuple[str, ...]]] = [
    # the configuration
    (1, "an empty file", (f"{FILE}[empty]",)),
    (2, "a TOML syntax error", (f"{PROBLEM}[syntax]",)),
    (3, "UTF-16, invalid UTF-8", (f"{PLAIN}[UTF-16]", f"{PLAIN}[Latin-1]")),
    (4, "an unknown key", (f"{PROBLEM}[unknown key]",)),
    (5, "a wrong type", (f"{PROBLEM}[string for a number]",)),
    (6, "a key twice", (f"{PROBLEM}[duplicate key]", f"{PROBLEM}[duplicate table]")),
    (7, "the name ../x", (f"{FILE}[name]",)),
    (8, "a name in capitals, empty, endless", (f"{PROBLEM}[name with capitals]", f"{PROBLEM}[empty name]",
                                               f"{PROBLEM}[long name]")),
    (9, "a context outside", (f"{PROBLEM}[absolute context]", f"{PATHS}link_out_of_project_is_refused")),
    (10, "no Dockerfile", (f"{PROBLEM}[missing Dockerfile]",)),
    (11, "a size in words, or below zero", (f"{PROBLEM}[size in words]", f"{PROBLEM}[negative size]")),
    (12, "a limit that is none", (f"{PROBLEM}[unlimited memory]", f"{PROBLEM}[unlimited processes]")),
    (13, "a port of 0, 70000, or twice", (f"{PROBLEM}[port zero]", f"{PROBLEM}[port out of range]",
                                          f"{PROBLEM}[duplicate port]")),
    (14, "a blank reason", (f"{PROBLEM}[blank reason]",)),
    (15, "a newer schema", (f"{FILE}[newer schema]",)),
    (16, "a FIFO, a folder, 1 GB", ("config/test_find.py::test_irregular_file_is_refused", f"{PLAIN}[too large]")),
    (17, "escapes of a terminal", (f"{PROBLEM}[terminal escape in a value]",)),
    # the environment
    (18, "a required variable without a value", ("lab/test_facts.py::test_required_variable_without_value_is_named",)),
    (19, "a literal that looks like a secret", (f"{PROBLEM}[default that looks like a secret]",
                                                f"{PROBLEM}[build argument that looks like a secret]")),
    (20, "a newline in a value", (f"{PROBLEM}[newline in a value]",)),
    (21, "an invalid SOURCE_DATE_EPOCH",
     (f"{NOT_APPLICABLE}the time of a build is its commit's; the variable is set by Lyra and never read",)),
    (22, "HOME unset or not writable", ("test_locks.py::test_missing_state_directory_names_variables",
                                        f"{WORD}unusable_state_directory_is_reported",
                                        "tasks/test_program.py::test_invalid_home_is_reported")),
    (23, "DOCKER_HOST on another machine", (f"{ENGINE}remote_engine_is_refused_without_connecting",)),
    # git
    (24, "no repository", (f"{GIT}a_folder_outside_of_a_repository_is_told",)),
    (25, "no commits", (f"{GIT}a_repository_without_commits_is_told",)),
    (26, "a dirty tree", (f"{RELEASING}everything_that_stands_against_a_release_is_told_at_once",
                          f"{RELEASING}many_changes_are_counted")),
    (27, "an untracked file", (f"{GIT}changes_are_named_and_hashed_by_content_alone",)),
    (28, "a detached or shallow checkout", (f"{GIT}a_detached_shallow_clone_is_told",
                                            f"{RELEASING}a_shallow_clone_says_that_its_version_may_be_wrong_and_is_not_"
                                            "released")),
    (29, "a tag elsewhere than HEAD", (f"{RELEASING}a_version_must_be_above_its_line_wherever_that_was_tagged",)),
    (30, "dubious ownership", (f"{GIT}a_repository_of_another_owner_gives_gits_own_advice",)),
    (31, "in the middle of a merge", (f"{RELEASING}in_the_middle_of_a_merge_nothing_is_released",)),
    (32, "a token in the remote's URL", (f"{GIT}the_remote_is_told_without_credentials",)),
    (33, "no git", (f"{GIT}without_git_the_hint_says_to_install_it",)),
    (34, "a submodule that is not there", ("builds/test_facts.py::test_uninitialized_submodule_is_refused",)),
    # the command line
    (35, "an unknown word", ("tasks/test_program.py::test_usage_error_exits_with_2",)),
    (36, "a version that is none", ("release/test_decide.py::test_invalid_options_are_usage_errors[1.0/..]",
                                    )),
    (37, "a version that exists", (f"{RELEASING}everything_that_stands_against_a_release_is_told_at_once",)),
    (38, "one version, another digest", (f"{PROMOTE}one_version_never_gets_other_bytes",)),
    (39, "promotion of what is untested", (f"{PROMOTE}what_was_not_tested_is_not_promoted",)),
    (40, "a test older than the build", (f"{PROMOTE}an_input_that_changed_is_named_by_test_and_promote",)),
    (41, "clean without a confirmation",
     ("engine/test_cleaning.py::test_clean_all_keeps_source_bundles_and_records",)),
    # the engine
    (42, "a stopped engine", (f"{ENGINE}dead_socket_is_named",)),
    (43, "no right to the socket", (f"{ENGINE}forbidden_socket_hints_at_group",)),
    (44, "an API that is too old", (f"{CLEAN}unsupported_engine_is_refused_by_every_command",)),
    (45, "no buildx", (f"{ENGINE}missing_buildx_is_reported",)),
    (46, "an unsupported exporter",
     ("engine/test_machines.py::test_unusable_builder_is_refused",)),
    (47, "a base that is nowhere",
     ("engine/test_bases.py::test_unavailable_base_is_reported_with_location",)),
    (48, "another platform",
     ("rules/test_deviations.py::test_an_image_that_is_too_large_or_for_another_platform_breaks_a_rule",)),
    (49, "a name or port that is taken",
     ("checks/test_groups.py::test_labs_of_one_run_share_no_object_names",
      f"{LAB}two_tests_of_one_project_at_once_do_not_meet")),
    (50, "out of memory", (f"{LAB}a_container_that_never_serves_says_why",)),
    (51, "a hang", (f"{LAB}every_kind_of_check_says_what_was_seen_and_no_secret",
                    f"{CLEAN}hanging_engine_is_reported_and_next_clean_continues")),
    (52, "a restart in the middle",
     (f"{ENGINE}engine_killed_during_build_or_test_allows_rerun",)),
    (53, "an image or a container that was removed",
     (f"{PROMOTE}a_commit_after_the_build_and_an_image_that_is_gone_are_named",
      f"{CLEAN}container_removed_by_others_fails_test_run")),
    (54, "limits that the kernel cannot keep", ("lab/test_limits.py::test_limits_dropped_by_engine_are_refused",)),
    # the file system
    (55, "a folder that is missing or read-only",
     (f"{WORD}unusable_state_directory_is_reported",
      f"{PROMOTE}a_place_that_takes_no_bundles_is_named")),
    (56, "a full disk", (f"{PROMOTE}a_full_disk_during_promote_leaves_what_was_there_and_nothing_half",
                         f"{PROMOTE}a_full_disk_under_the_runs_folder_is_told",
                         f"{CLEAN}full_engine_disk_is_reported_and_clean_works")),
    (57, "a link in place of the folder of bundles",
     (f"{NOT_APPLICABLE}where bundles lie is the user's to choose, also by a link; links inside of one are refused",)),
    (58, "bundles inside of the context", (f"{PATHS}context_with_lyras_files_is_refused",)),
    (59, "stage and target on two file systems",
     (f"{NOT_APPLICABLE}a bundle is staged in the folder that it is renamed in",)),
    (60, "a stage that was left", ("bundle/test_staging.py::test_staging_removes_leftovers",)),
    (61, "names that differ by case alone",
     (f"{RELEASING}versions_that_no_place_can_hold_side_by_side_are_refused",)),
    (62, "a file system that cannot sync",
     ("test_files.py::test_missing_fsync_support_warns_once",)),
    (63, "a corrupt lock or journal", ("dockerfile/test_lock.py::test_invalid_lock_file_is_refused_with_the_reason",
                                       "records/test_journal.py::test_a_torn_last_line_is_repaired_at_every_byte_and_"
                                       "the_repair_is_recorded")),
    (64, "what everybody may change", ("bundle/test_signature.py::test_world_readable_key_does_not_sign",
                                       "bundle/test_staging.py::test_world_writable_directory_warns")),
    (65, "a clock before the commit", ("overview/test_doctor.py::test_doctor_reports_problem_with_fix[clock]",)),
    # the bundle
    (66, "no signature", ("bundle/test_signature.py::test_missing_signature_is_refused",)),
    (67, "an unknown key",
     ("bundle/test_signature.py::test_other_key_is_refused_with_its_fingerprint",)),
    (68, "a file missing, extra, changed", ("bundle/test_verify.py::test_all_problems_are_reported_at_once",)),
    (69, "a key or a path twice", ("bundle/test_packs.py::test_verify_refuses_duplicate_key",
                                   "bundle/test_packs.py::test_verify_names_foreign_member_of_documents")),
    (70, "a bomb", ("images/test_archive.py::test_layer_unpacking_beyond_limit_is_refused",
                    "images/test_archive.py::test_archive_with_too_many_members_is_refused")),
]  # fmt: skip

FAULTS: dict[type[LyraError], tuple[int, str]] = {
    errors.ConfigurationError: (2, PROBLEM),
    errors.UsageError: (2, f"{ENGINE}unknown_image_suggests_known_ones"),
    errors.PreconditionError: (3, f"{ENGINE}missing_docker_cli_is_reported"),
    errors.EngineUnavailableError: (3, f"{ENGINE}every_command_without_engine_lists_choices"),
    UnsupportedEngineError: (3, f"{CLEAN}unsupported_engine_is_refused_by_every_command"),
    RemoteEngineError: (3, f"{ENGINE}remote_engine_is_refused_without_connecting"),
    errors.StaleError: (3, f"{PROMOTE}an_input_that_changed_is_named_by_test_and_promote"),
    errors.OvercommitError: (
        3,
        f"{LAB}limits_that_the_host_cannot_keep_are_refused_with_a_table_before_anything_starts",
    ),
    errors.LockedError: (3, "engine/test_cleaning.py::test_active_run_of_other_process_is_reported"),
    errors.NoSpaceError: (3, f"{PROMOTE}a_full_disk_under_the_journal_is_told"),
    errors.BuildError: (
        4,
        "engine/test_faults_build.py::test_failed_step_shows_its_last_lines_and_the_log",
    ),
    errors.CheckFailedError: (5, f"{LAB}no_check_at_all_is_a_failure"),
    errors.BundleError: (6, f"{PROMOTE}verify_as_the_receiver_types_it"),
    errors.ImmutableError: (6, f"{PROMOTE}one_version_never_gets_other_bytes"),
    errors.LeftoverError: (7, "engine/test_cleaning.py::test_leftover_is_reported_with_fix"),
    errors.InterruptedRunError: (130, f"{ENGINE}interrupted_build_leaves_nothing"),
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def exists(test: str) -> bool:
    """Whether there is this function; `[id]` behind it must be written in the same file."""
    file, _, rest = test.partition("::")
    name, _, case = rest.partition("[")
    path = REPOSITORY / "tests" / file
    if not path.is_file():
        return False
    functions = {node.name for node in tree(path).body if isinstance(node, ast.FunctionDef)}
    texts = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
    return name in functions and (not case or case.removesuffix("]") in texts)


def test_inputs_are_numbered_without_gaps() -> None:
    assert [number for number, _, _ in INPUTS] == list(range(1, 71))


@pytest.mark.parametrize(("number", "held"), [(number, held) for number, _, held in INPUTS])
def test_bad_input_has_tests_or_reason(number: int, held: tuple[str, ...]) -> None:
    assert held
    if held[0].startswith(NOT_APPLICABLE):
        assert len(held) == 1 and len(held[0]) > len(NOT_APPLICABLE) + 20
        return
    assert [test for test in held if not exists(test)] == [], number


def test_every_error_has_exit_code_and_test() -> None:
    assert {fault.__name__: fault.exit_code for fault in FAULTS} == {
        fault.__name__: code for fault, (code, _) in FAULTS.items()
    }
    assert [test for _, test in FAULTS.values() if not exists(test)] == []


def test_error_table_is_complete() -> None:
    assert kinds_of_fault() == {fault.__name__ for fault in FAULTS}


def kinds_of_fault() -> set[str]:
    """The names of all classes of the program that come from LyraError, found without importing anything."""
    bases = {
        node.name: {each.id for each in node.bases if isinstance(each, ast.Name)}
        for path in sorted((REPOSITORY / "lyra_tasks").rglob("*.py"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    }
    found = {LyraError.__name__}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found - {LyraError.__name__}


def test_missing_test_or_case_is_detected() -> None:
    assert exists(PROBLEM) and exists(f"{PROBLEM}[syntax]")
    for test in (f"{PROBLEM}[no such case]", f"{PROBLEM}s", "config/none.py::test_a"):
        assert not exists(test)
