//! Device profiles parsed from data: which topic, path or register is which point, scaling, byte order.
