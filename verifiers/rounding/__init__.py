"""What float32 does to a proof: measured over an instance's box (`guard`), bounded a priori (`lirpa`, `enclosure`)."""
