//! One suite per port, run by every engine; the proof of the contracts in `ports/`.
