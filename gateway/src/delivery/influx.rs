//! Readings as line protocol to an InfluxDB v2 API.
