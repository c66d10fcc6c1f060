//! Flags of `hypura top`.

use anyhow::Context as _;
use hypura_server::address::Address;
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::app::App;
use super::document::{EXPERTS, STATUS, Status};
use super::feed::{Seen, encoded, refusal};
use super::{screen, view};
use crate::cli::failure::UsageError;
use crate::client::Client;

/// Columns of `--once` where no terminal says how many it has.
const COLUMNS: u16 = 100;

/// Flags of `hypura top`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the server is [default: HYPURA_HOST or OLLAMA_HOST, or the usual address of this machine]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,

    /// Key of the server
    #[arg(long, value_name = "KEY", env = "HYPURA_API_KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// Print how it is now, and end
    #[arg(long)]
    once: bool,

    /// Print the server's documents as lines of JSON instead: one each interval, or one with --once
    #[arg(long)]
    json: bool,

    /// Time between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    let within = (0.1..=3600.0).contains(&seconds);
    within.then(|| Duration::from_secs_f64(seconds)).ok_or_else(|| "it must be 0.1 to 3600".to_owned())
}

/// Shows it until the person leaves.
///
/// # Errors
/// With `--once` or `--json` when no server answers; when the terminal cannot be used, or the output is
/// closed.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let client = match &args.host {
        Some(host) => Client::new(Address::parse(host).for_clients(), args.api_key.clone()),
        None => Client::of_environment().with_key_of(args.api_key.clone()),
    };
    if args.json {
        return lines(&client, args);
    }
    if args.once {
        return once(&client);
    }
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        let why = "this is no terminal: --once prints how it is now, --json prints it for programs";
        return Err(UsageError(why.to_owned()).into());
    }
    screen::watch(&client, args.interval)
}

fn document(client: &Client) -> anyhow::Result<Value> {
    client.get(STATUS).map_err(|error| anyhow::anyhow!(refusal(client, &error)))
}

fn lines(client: &Client, args: &Args) -> anyhow::Result<ExitCode> {
    loop {
        let line = document(client)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write the output")?;
        if args.once {
            return Ok(ExitCode::SUCCESS);
        }
        drop(out);
        std::thread::sleep(args.interval);
    }
}

fn once(client: &Client) -> anyhow::Result<ExitCode> {
    let status: Status = serde_json::from_value(document(client)?).context("the answer makes no sense")?;
    let mut app = App::new(client.address());
    let experts =
        app.wanted_map(&status).and_then(|name| client.get(&format!("{EXPERTS}{}", encoded(&name))).ok());
    app.see(Seen::now(status, experts.and_then(|map| serde_json::from_value(map).ok())));
    let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(COLUMNS, |size| size.ws_col);
    let text = view::text(&app, if columns == 0 { COLUMNS } else { columns });
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write the output")?;
    Ok(ExitCode::SUCCESS)
}
