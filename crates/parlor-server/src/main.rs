//! The binary: subcommands, the log, and an orderly end.

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};
use parlor_server::{
    config::{self, Config, Flags, LogFormat},
    http,
    wiring::{self, Overrides, Storage},
};
use tracing_subscriber::EnvFilter;

/// Real-time messaging, self-hosted.
/// Says when this build holds planted bugs: it is for tests of the tests only.
const VERSION: &str = if cfg!(feature = "planted") {
    concat!(env!("CARGO_PKG_VERSION"), " WITH PLANTED BUGS")
} else {
    env!("CARGO_PKG_VERSION")
};

#[derive(Parser)]
#[command(name = "parlor", version = VERSION, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(Flags),
    /// Print the configuration with the source of each value.
    Config(Flags),
    /// Check the configuration and the folder of the data.
    Check(Flags),
    /// Print the description of an interface.
    #[command(hide = true)]
    Api {
        /// `openapi` or `asyncapi`.
        which: Api,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Api {
    Openapi,
    Asyncapi,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parlor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let load = |flags: &Flags| config::load(flags).map_err(|error| anyhow::anyhow!(error));
    match command {
        Command::Serve(flags) => {
            let (config, _) = load(&flags)?;
            start_log(&config)?;
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(serve(config))
        }
        Command::Config(flags) => {
            let (config, figment) = load(&flags)?;
            let text = config::describe(&config, &figment);
            println!("{}", text.map_err(|error| anyhow::anyhow!(error))?);
            Ok(())
        }
        Command::Check(flags) => {
            let (config, _) = load(&flags)?;
            let findings = wiring::check(&config)?;
            findings.iter().for_each(|finding| println!("note: {finding}"));
            println!("the configuration and the data folder are fine");
            Ok(())
        }
        Command::Api { which } => {
            let document = match which {
                Api::Openapi => http::openapi::document(),
                Api::Asyncapi => http::asyncapi::document(),
            };
            println!("{}", serde_json::to_string_pretty(&document)?);
            Ok(())
        }
    }
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&config.log).map_err(|error| anyhow::anyhow!("log: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let are_limits_off = !config.rate_limits.is_on();
    let (public_url, is_local) = (config.public_url.clone(), config.listen.ip().is_loopback());
    let running = wiring::start(config, Storage::Sqlite, Overrides::default()).await?;
    if are_limits_off {
        tracing::warn!("RATE LIMITS ARE OFF: anybody may send as fast as they like");
    }
    let address = match running.address {
        any if any.ip().is_unspecified() => format!("http://localhost:{}", any.port()),
        one => format!("http://{one}"),
    };
    let mut text = format!("Parlor is ready: open {}\n", public_url.unwrap_or(address));
    if let Some(code) = &running.setup_code {
        let who = if is_local {
            "The first account, if made through a proxy,"
        } else {
            "The first account"
        };
        text.push_str(&format!("{who} needs this code: {code}\n"));
    }
    // Whoever started us may have stopped listening; that is no reason to end.
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        tracing::warn!(%error, "nobody reads the standard output");
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}
