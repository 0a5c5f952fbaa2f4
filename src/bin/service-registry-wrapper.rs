//! `service-registry-wrapper [OPTIONS] COMMAND [ARGS]...`

use service_registry_wrapper::wrapper::{args, run};

fn main() {
    let ending = match args::parse(std::env::args_os()) {
        Ok(settings) => run(&settings),
        Err(ending) => ending,
    };
    ending.end()
}
