//! `anmin verify`: whether a package is what was written. Needs nothing but the file: no site, no daemon, no state.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::package::{self, Damage, Verified};

/// `anmin verify`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 whole; 1 changed, or it cannot be read; 2 used wrongly.")]
pub struct Options {
    /// The package, as `anmin incident export` wrote it.
    file: PathBuf,
    /// The seal that was written down when it was made: the package must bear this one.
    #[arg(long, value_name = "SHA-256")]
    seal: Option<String>,
}

pub fn verify(options: &Options) -> ExitCode {
    let shown = options.file.display();
    let file = match fs::read(&options.file) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("错误：无法读取 {shown}：{error}\nerror: {shown} cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    match package::verify(&file) {
        Ok(Verified { seal, about, entries }) => {
            if let Some(known) =
                options.seal.as_deref().map(str::trim).filter(|known| !known.eq_ignore_ascii_case(&seal))
            {
                eprintln!(
                    "错误：{shown} 自身完好，但封印为 {seal}，不是 {known}：它不是当时的档案\n\
                     error: {shown} is whole by itself, but its seal is {seal} and not {known}: it is not the package of then"
                );
                return ExitCode::FAILURE;
            }
            println!("{shown}：完好，{entries} 个文件 · whole, {entries} files");
            println!("封印 seal: {seal}");
            println!("{about}");
            if options.seal.is_none() {
                println!("请与当时记下的封印核对 · compare the seal with the one that was written down");
            }
            ExitCode::SUCCESS
        }
        Err(Damage { entry, byte, why }) => {
            eprintln!(
                "错误：{shown} 已被改动：{entry}，第 {byte} 字节：{}\nerror: {shown} was changed: {entry}, byte {byte}: {}",
                why.zh, why.en
            );
            ExitCode::FAILURE
        }
    }
}
