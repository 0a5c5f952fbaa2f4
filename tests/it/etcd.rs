//! A registry that is an etcd cluster: what the suite over every backend does not ask.
