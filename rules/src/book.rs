//! The book of all open alarms: verdicts and commands in, transitions out.
