"""The table of faults is whole: every fault that it promises has its row, and the rows are counted, not guessed."""

from collections import Counter
from collections.abc import Iterable

import pytest

from tests.support.fault_table import rows

LEAST = 40  # rows; `python -m tests.support.fault_table` prints how many there are

# The faults by name, and a row that plays each (a module with its test, and the row's own name).
PROMISED = {
    "D7: the login answers in the form of an object": "test_d7::test_d7[not-found]",
    "D7: FastAPI's list": "test_d7::test_d7[invalid]",
    "D7: a plain string": "test_d7::test_d7[string-detail]",
    "D7: 401, expired": "test_d7::test_d7[expired]",
    "D7: 401, signature": "test_d7::test_d7[unauthorized]",
    "D7: 401 three times over": "test_d7::test_three_401_in_a_row_are_a_refusal",
    "D7: 408": "test_d7::test_d7[status:status=408]",
    "D7: 425": "test_d7::test_d7[status:status=425]",
    "D7: 429": "test_d7::test_d7[rate-limited:after=3600]",
    "D7: 5xx": "test_d7::test_d7[server-error]",
    "D7: a token without exp": "test_d7_forms::test_tokens_of_every_form[no exp]",
    "D7: a token in two parts": "test_d7_forms::test_tokens_of_every_form[two parts]",
    "D7: a token that is no JWT": "test_d7_forms::test_tokens_of_every_form[no JWT]",
    "D7: the same bytes again": "test_d7_forms::test_tokens_of_every_form[the same bytes every time]",
    "DNS fails": "test_d7::test_dns",
    "connect refused": "test_d7::test_connect_refused",
    "TLS: wrong host": "test_d7::test_tls[wrong-host]",
    "TLS: expired": "test_d7::test_tls[expired]",
    "TLS: unknown CA": "test_d7::test_tls[unknown-ca]",
    "hangs before the headers": "test_d7_slow::test_servers_that_hang[hang:where=before]",
    "hangs within the headers": "test_d7_slow::test_servers_that_hang[hang:where=headers]",
    "hangs after the headers": "test_d7_slow::test_servers_that_hang[hang:where=body]",
    "drips a byte a second": "test_d7_slow::test_servers_that_hang[drip:rate=1]",
    "closes mid-body": "test_d7::test_d7[truncated]",
    "1 GiB body": "test_d7_forms::test_a_gibibyte_is_not_taken[too-large]",
    "gzip bomb": "test_d7::test_d7[gzip-bomb]",
    "redirect to another host": "test_d7_forms::test_redirect_to_another_host",
    "token with control characters": "test_d7::test_d7[token-control]",
    "token of 1 MiB": "test_d7::test_d7[token-too-large]",
    "exp in the past": "test_d7::test_d7[exp-past]",
    "exp a string": "test_d7::test_d7[exp-string]",
    "exp a float": "test_d7::test_d7[exp-float]",
    "exp negative": "test_d7::test_d7[exp-negative]",
    "exp in the year 9999": "test_d7::test_d7[exp-year-9999]",
    "wrong token_type": "test_d7::test_d7[token-type]",
    "duplicate keys": "test_d7::test_d7[duplicate-keys]",
    "Date header absurd": "test_d7::test_d7[date-absurd]",
    "keyring: locked": "test_keyring::test_keyring_faults[locked]",
    "keyring: prompt never answered": "test_keyring::test_a_prompt_that_nobody_answers",
    "keyring: daemon stopped": "test_keyring::test_keyring_faults[stopped]",
    "keyring: daemon killed, the bus starts another": "test_keyring::test_keyring_faults[killed, started by the bus]",
    "keyring: daemon killed, none comes": "test_keyring::test_keyring_faults[killed]",
    "keyring: never made": "test_bus::test_no_keyring_on_the_bus[never-made]",
    "keyring: no daemon, no activation": "test_bus::test_no_keyring_on_the_bus[no-daemon]",
    "keyring: bus not set": "test_bus::test_no_bus[unset]",
    "keyring: bus missing": "test_keyring::test_no_bus",
    "keyring: bus not readable": "test_bus::test_no_bus[another user's]",
    "keyring: backend's name wrong": "test_bus::test_no_such_backend[module]",
    "keyring: item deleted": "test_keyring::test_keyring_faults[deleted by hand]",
    "keyring: item edited to rubbish": "test_keyring_items::test_an_item_edited_by_hand[a list]",
    "helper killed at any point": "test_helper::test_helper_killed_at_any_point[0.1]",
    "helper cannot be started": "test_helper::test_helper[cannot-start]",
    "helper out of memory": "test_helper::test_helper[no-memory-to-work]",
    "helper prints to stdout": "test_helper::test_helper[prints-before-its-answer]",
    "files: disk full": "test_disks::test_state_cannot_be_written[full]",
    "files: read-only": "test_disks::test_credential_cannot_be_written[read-only]",
    "files: config replaced mid-read": "test_files::test_configuration_replaced_mid_read",
    "files: profile half written": "test_files::test_profile_half_written[in a string]",
    "files: state rubbish": "test_files::test_state_file_that_is_none[rubbish]",
    "files: state from the future": "test_files::test_state_file_that_is_none[from the future]",
    "socket path too long": "test_sockets::test_path_too_long",
    "socket path a directory": "test_sockets::test_socket_in_the_way[a-folder]",
    "socket path owned by someone else": "test_sockets::test_socket_in_the_way[someone-else's-socket]",
    "socket path: a live agent there": "test_sockets::test_live_agent_there",
    "socket path: a dead one's leftover": "test_sockets::test_dead_agents_leftover",
    "clock: +1 h": "test_clock::test_wall_clock_set[+1h]",
    "clock: -1 h": "test_clock::test_wall_clock_set[-1h]",
    "clock: +10 years": "test_clock::test_wall_clock_set[+10y]",
    "clock: -10 years": "test_clock::test_wall_clock_set[-10y]",
    "clock: suspend of 2 h": "test_clock::test_suspend_beyond_expiry",
    "process: SIGTERM": "test_process::test_ended_during_a_login[15]",
    "process: SIGKILL": "test_process::test_ended_during_a_login[9]",
    "process: SIGSTOP and SIGCONT": "test_process::test_stopped_and_continued",
    "process: out of file descriptors": "test_process::test_out_of_descriptors",
}


@pytest.fixture(scope="module")
def table() -> list[str]:
    return rows()


def test_every_promised_fault_has_its_row(table: list[str]) -> None:
    """No fault that the table is to hold has lost its row, by a new name or by being dropped."""
    assert missing(PROMISED.values(), table) == []


def test_the_table_is_large_enough(table: list[str]) -> None:
    """At least forty rows, no two of them the same."""
    assert [row for row, count in Counter(table).items() if count > 1] == []
    assert len(table) >= LEAST


def test_a_missing_row_is_seen() -> None:
    """The check finds what is not there."""
    assert missing(["a::b[c]", "a::d"], ["a::b[c]"]) == ["a::d"]


def missing(wanted: Iterable[str], table: list[str]) -> list[str]:
    """The wanted rows that the table does not have."""
    return [row for row in wanted if row not in table]
