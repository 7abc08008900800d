"""What float32 does to a proof: measured over an instance's own box (`guard`), bounded a priori (`lirpa`, `enclosure`)."""
