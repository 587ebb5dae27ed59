//! All rules of a site, bound to its points, judged when something they read has changed.
