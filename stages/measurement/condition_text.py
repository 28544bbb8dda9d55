"""Tells in words in which condition a device was while engines were timed."""

from collections.abc import Sequence

from bonsai.stages.backends.timing_records import Conditions


def describe_conditions(conditions: Sequence[Conditions]) -> str:
    """Return governor, clock, temperature and throttling around several timings, in a sentence without a full stop; empty if nothing is known of them."""
    if not conditions:
        return ""
    first, last = conditions[0].before, conditions[-1].after
    cores = in_ranges(conditions[0].cores)
    said = [f"at first {first.sentence}; at last {last.sentence}" if first.sentence or last.sentence else "the device does not tell its clock and temperature"]
    said.append(f"the timing could use the core{'s' if len(conditions[0].cores) > 1 else ''} {cores}")
    said += list(dict.fromkeys(each.warning for each in conditions if each.warning))
    return "; ".join(said)


def in_ranges(numbers: Sequence[int]) -> str:
    """Return rising numbers with those in a row as a range: ``0-3, 8``."""
    ranges = list[list[int]]()
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{found[0]}-{found[-1]}" if len(found) > 1 else str(found[0]) for found in ranges)
