//! The batch group (`batch/v1`), one file a kind.

pub mod cron_job;
pub mod job;
pub mod job_spec;
pub mod schedule;
