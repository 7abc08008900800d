"""The numbers and texts that result files are made of, with the ranges in which they make sense.

A value outside of its range is refused where a file is read, so that nothing behind that door meets a number that
overflows, a count that takes all memory, or a name that moves the terminal's cursor.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

#: A whole number that counts things; float64 holds all of them exactly.
Count = Annotated[int, Meta(ge=0, le=2**53)]
#: A number of an image, a class, a place in a list.
Index = Annotated[int, Meta(ge=0, le=1_000_000_000)]
#: A number of images; no image set is larger, and what is made for each of them fits into memory.
Images = Annotated[int, Meta(ge=0, le=10_000_000)]
#: A whole number from 1 on: processes, threads, images handed over together.
Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]
#: A seed of a random generator.
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
#: Seconds. Differences of clocks may fall a little below 0, so that no sign is asked for.
Seconds = Annotated[float, Meta(ge=-1e12, le=1e12)]
#: A limit in seconds, above 0.
Limit = Annotated[float, Meta(gt=0, le=1e12)]
#: A finite amount: MiB, GiB, a load average, images a second.
Amount = Annotated[float, Meta(ge=-1e12, le=1e12)]
#: A share of 1.
Share = Annotated[float, Meta(ge=0, le=1)]
#: A compression: all weights over those kept; of a network whose weights are all zero it is as large as can be.
Ratio = Annotated[float, Meta(gt=0, le=1e300)]
#: A name that stands in tables and messages: no control characters, which a terminal would obey.
Name = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")]
#: A radius as text, exact: ``2/255``, ``1/4`` or ``0.25``; no exponent, whose digits would fill the memory.
Radius = Annotated[str, Meta(pattern=r"\A(?:[0-9]{1,30}(?:/0*[1-9][0-9]{0,30})?|[0-9]{0,3}\.[0-9]{1,30})\Z")]
