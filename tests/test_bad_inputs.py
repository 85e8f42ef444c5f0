"""Every bad input of the list and every error class has a test.

Each numbered input names its tests, or the reason why it does not apply. All tests assert an exit code other than 0, a
message that names the file or key, a hint, and no traceback.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from lyra_tasks import errors
from lyra_tasks.bundle.format.manifest import OtherFormatError
from lyra_tasks.develop.watch import EnvironmentGoneError
from lyra_tasks.engine.bases.sources import UnavailableImagesError
from lyra_tasks.engine.client.connect import NoEngineError, RemoteEngineError
from lyra_tasks.engine.client.facts import UnsupportedEngineError
from lyra_tasks.engine.objects.volumes import UnknownUserError
from lyra_tasks.errors import LyraError
from lyra_tasks.tasks.task import CommandExitError

REPOSITORY = Path(__file__).parents[1]
NOT_APPLICABLE = "not applicable: "

FILE = "config/test_problems.py::test_invalid_document_is_refused"
PROBLEM = "config/test_problems.py::test_problem_names_line_key_and_allowed_values"
PLAIN = "config/test_find.py::test_file_without_plain_text_is_refused"
PATHS = "config/test_paths.py::test_"
GIT = "versions/test_git.py::test_"
RELEASING = "releases/test_releasing.py::test_"
LAB = "engine/test_faults_lab.py::test_"
PROMOTE = "engine/test_faults_promote.py::test_"
ENGINE = "engine/test_faults_engine.py::test_"
CLEAN = "engine/test_faults_clean.py::test_"
TASK = "tasks/test_task.py::test_"

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
    (9, "a context outside the project", (f"{PROBLEM}[absolute context]", f"{PATHS}link_out_of_project_is_refused")),
    (10, "no Dockerfile", (f"{PROBLEM}[missing Dockerfile]",)),
    (11, "a size in words, or negative", (f"{PROBLEM}[size in words]", f"{PROBLEM}[negative size]")),
    (12, "a missing limit", (f"{PROBLEM}[unlimited memory]", f"{PROBLEM}[unlimited processes]")),
    (13, "a port of 0, 70000, or twice", (f"{PROBLEM}[port zero]", f"{PROBLEM}[port out of range]",
                                          f"{PROBLEM}[duplicate port]")),
    (14, "a blank reason", (f"{PROBLEM}[blank reason]",)),
    (15, "a newer schema", (f"{FILE}[newer schema]",)),
    (16, "a FIFO, a directory, 1 GB", ("config/test_find.py::test_irregular_file_is_refused", f"{PLAIN}[too large]")),
    (17, "terminal escapes", (f"{PROBLEM}[terminal escape in a value]",)),
    # the environment
    (18, "a required variable without a value", ("lab/test_facts.py::test_required_variable_without_value_is_named",)),
    (19, "a literal that looks like a secret", (f"{PROBLEM}[default that looks like a secret]",
                                                f"{PROBLEM}[build argument that looks like a secret]")),
    (20, "a newline in a value", (f"{PROBLEM}[newline in a value]",)),
    (21, "an invalid SOURCE_DATE_EPOCH",
     (f"{NOT_APPLICABLE}builds use the time of their commit; Lyra sets the variable and never reads it",)),
    (22, "HOME unset or not writable", ("test_locks.py::test_missing_state_directory_names_variables",
                                        f"{TASK}unusable_state_directory_is_reported",
                                        "tasks/test_program.py::test_invalid_home_is_reported")),
    (23, "DOCKER_HOST on another machine", (f"{ENGINE}remote_engine_is_refused_without_connecting",)),
    # git
    (24, "no repository", (f"{GIT}directory_outside_a_repository_is_refused",)),
    (25, "no commits", (f"{GIT}repository_without_commits_is_refused",)),
    (26, "a dirty tree", (f"{RELEASING}all_release_problems_are_reported_at_once",
                          f"{RELEASING}many_changed_paths_are_counted")),
    (27, "an untracked file", (f"{GIT}changes_are_listed_and_hashed_by_content",)),
    (28, "a detached or shallow checkout", (f"{GIT}detached_shallow_clone_is_recognized",
                                            f"{RELEASING}release_refuses_shallow_clone")),
    (29, "a tag on another commit than HEAD", (f"{RELEASING}version_must_be_above_all_of_its_line",)),
    (30, "dubious ownership", (f"{GIT}foreign_owner_shows_the_advice_of_git",)),
    (31, "in the middle of a merge", (f"{RELEASING}unfinished_git_operation_refuses_release",)),
    (32, "a token in the remote's URL", (f"{GIT}remote_url_has_no_credentials",)),
    (33, "no git", (f"{GIT}missing_git_has_an_install_hint",)),
    (34, "a missing submodule", ("builds/test_facts.py::test_uninitialized_submodule_is_refused",)),
    # the command line
    (35, "an unknown task", ("tasks/test_program.py::test_usage_error_exits_with_2",)),
    (36, "an invalid version", ("releases/test_decide.py::test_invalid_options_are_usage_errors[1.0/..]",
                                    )),
    (37, "an existing version", (f"{RELEASING}all_release_problems_are_reported_at_once",)),
    (38, "one version, another digest", (f"{PROMOTE}promote_refuses_version_with_other_content",)),
    (39, "promotion without a test", (f"{PROMOTE}promote_refuses_untested_set",)),
    (40, "a test older than the build", (f"{PROMOTE}changed_input_is_named_by_test_and_promote",)),
    (41, "clean without a confirmation",
     ("engine/test_cleaning.py::test_clean_all_keeps_source_bundles_and_records",)),
    # the engine
    (42, "a stopped engine", (f"{ENGINE}dead_socket_is_named",)),
    (43, "no permission for the socket", (f"{ENGINE}forbidden_socket_hints_at_group",)),
    (44, "an old API", (f"{CLEAN}unsupported_engine_is_refused_by_every_command",)),
    (45, "no buildx", (f"{ENGINE}missing_buildx_is_reported",)),
    (46, "an unsupported exporter",
     ("engine/test_machines.py::test_unusable_builder_is_refused",)),
    (47, "an unavailable base",
     ("engine/test_bases.py::test_unavailable_base_is_reported_with_location",)),
    (48, "another platform",
     ("rules/test_deviations.py::test_large_or_foreign_image_violates_rule",)),
    (49, "a name or port in use",
     ("checks/test_groups.py::test_labs_of_one_run_share_no_object_names",
      f"{LAB}parallel_test_runs_do_not_interfere")),
    (50, "out of memory", (f"{LAB}service_that_never_gets_ready_explains_why",)),
    (51, "a hang", (f"{LAB}failed_checks_explain_without_secrets",
                    f"{CLEAN}hanging_engine_is_reported_and_next_clean_continues")),
    (52, "a restart during a run",
     ("engine/test_faults_clean.py::test_engine_killed_during_build_test_and_clean_allows_rerun",)),
    (53, "a removed image or container",
     (f"{PROMOTE}new_commit_or_missing_image_is_named",
      f"{CLEAN}container_removed_by_others_fails_test_run")),
    (54, "limits that the kernel does not support",
     ("lab/test_admission.py::test_limits_dropped_by_engine_are_refused",)),
    # the file system
    (55, "a missing or read-only directory",
     (f"{TASK}unusable_state_directory_is_reported",
      f"{PROMOTE}unwritable_promotion_directory_is_named")),
    (56, "a full disk", ("engine/test_promotions.py::test_full_disk_leaves_bundles_unchanged",
                         f"{PROMOTE}full_disk_under_run_directory_is_reported",
                         f"{CLEAN}full_engine_disk_is_reported_and_clean_works")),
    (57, "a link instead of the bundle directory",
     (f"{NOT_APPLICABLE}the user may choose the place of bundles by a link; links inside a bundle are rejected",)),
    (58, "bundles inside of the context", (f"{PATHS}context_with_lyras_files_is_refused",)),
    (59, "stage and target on two file systems",
     (f"{NOT_APPLICABLE}a bundle is staged in the directory that it is renamed in",)),
    (60, "a staging directory left behind", ("bundle/test_staging.py::test_staging_removes_leftovers",)),
    (61, "names that differ only by case",
     (f"{RELEASING}versions_that_collide_are_refused",)),
    (62, "a file system without fsync",
     ("test_files.py::test_missing_fsync_support_warns_once",)),
    (63, "a corrupt lock or journal", ("dockerfile/test_lock.py::test_invalid_lock_file_is_refused_with_the_reason",
                                       "records/test_journal.py::test_torn_last_line_is_repaired_and_recorded")),
    (64, "world-writable files", ("bundle/test_signature.py::test_world_readable_key_does_not_sign",
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

ERRORS: dict[type[LyraError], tuple[int, str]] = {
    errors.ConfigurationError: (2, PROBLEM),
    errors.UsageError: (2, f"{ENGINE}unknown_image_suggests_known_ones"),
    errors.PreconditionError: (3, f"{ENGINE}missing_docker_cli_is_reported"),
    errors.EngineUnavailableError: (3, f"{ENGINE}every_command_without_engine_lists_choices"),
    NoEngineError: (3, f"{ENGINE}every_command_without_engine_lists_choices"),
    UnknownUserError: (3, "develop/test_plan.py::test_unknown_user_is_an_error"),
    UnavailableImagesError: (3, "engine/test_bases_plan.py::test_all_images_that_are_missing_are_in_one_error"),
    UnsupportedEngineError: (3, f"{CLEAN}unsupported_engine_is_refused_by_every_command"),
    RemoteEngineError: (3, f"{ENGINE}remote_engine_is_refused_without_connecting"),
    errors.StaleError: (3, f"{PROMOTE}changed_input_is_named_by_test_and_promote"),
    errors.OvercommitError: (
        3,
        f"{LAB}limits_above_host_capacity_are_refused",
    ),
    errors.LockedError: (3, "engine/test_cleaning.py::test_active_run_of_other_process_is_reported"),
    errors.NoSpaceError: (3, f"{PROMOTE}full_disk_under_the_journal_is_reported"),
    errors.BuildError: (
        4,
        "engine/test_faults_build.py::test_failed_step_shows_its_last_lines_and_the_log",
    ),
    errors.CheckFailedError: (5, f"{LAB}run_without_checks_fails"),
    errors.BundleError: (6, f"{PROMOTE}verify_command_names_bad_files"),
    OtherFormatError: (6, "bundle/test_other_formats.py::test_earlier_bundle_is_named_when_opened_or_verified"),
    errors.ImmutableError: (6, f"{PROMOTE}promote_refuses_version_with_other_content"),
    errors.LeftoverError: (7, "engine/test_cleaning.py::test_leftover_is_reported_with_fix"),
    EnvironmentGoneError: (1, "engine/test_dev_watch.py::test_watch_ends_when_the_environment_is_stopped"),
    CommandExitError: (1, "engine/test_dev.py::test_exec_passes_input_outputs_quotes_and_exit_code"),
    errors.InterruptedRunError: (130, f"{ENGINE}interrupted_build_leaves_nothing"),
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def exists(test: str) -> bool:
    """Return whether a test function exists, and the case `[id]` behind it is in the same file."""
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


@pytest.mark.parametrize(("number", "tests"), [(number, tests) for number, _, tests in INPUTS])
def test_bad_input_has_tests_or_reason(number: int, tests: tuple[str, ...]) -> None:
    assert tests
    if tests[0].startswith(NOT_APPLICABLE):
        assert len(tests) == 1 and len(tests[0]) > len(NOT_APPLICABLE) + 20
        return
    assert [test for test in tests if not exists(test)] == [], number


def test_every_error_has_exit_code_and_test() -> None:
    assert {error_class.__name__: error_class.exit_code for error_class in ERRORS} == {
        error_class.__name__: code for error_class, (code, _) in ERRORS.items()
    }
    assert [test for _, test in ERRORS.values() if not exists(test)] == []


def test_error_table_is_complete() -> None:
    assert error_class_names() == {error_class.__name__ for error_class in ERRORS}


def error_class_names() -> set[str]:
    """Return the names of all subclasses of LyraError, without importing the package."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in sorted((REPOSITORY / "lyra_tasks").rglob("*.py"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    }
    names = {LyraError.__name__}
    while more := {name for name, parents in bases.items() if parents & names} - names:
        names |= more
    return names - {LyraError.__name__}


def test_missing_test_or_case_is_detected() -> None:
    assert exists(PROBLEM) and exists(f"{PROBLEM}[syntax]")
    for test in (f"{PROBLEM}[no such case]", f"{PROBLEM}s", "config/none.py::test_a"):
        assert not exists(test)
