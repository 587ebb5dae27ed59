fn main() -> std::process::ExitCode {
    anmin::app::main()
}
