//! Which points and devices cannot be believed or heard: system alarms from the quality of samples.
