//! The heartbeat: queue, barrier, apply, governor, ledger, lead.
