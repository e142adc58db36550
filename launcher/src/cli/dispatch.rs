//! From the arguments to the exit code: parse, call the verb, write its answer.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::{self, Cli, Command, GateCommand, KeysCommand, PolicyCommand, RunCommand, TraceCommand};
use super::error::{CliError, ErrorCode};
use super::output::{Answer, Format, Output, correlation_id, envelope};
use super::{
    agent, approve, demo, doctor, exec, gate, guard, inventory, keys, migrate, policy, policy_fmt,
    policy_simulate, regress, report, run, run_seal, scout, trace, verify, version, why,
};

/// What a verb may know of its call besides its own arguments.
#[derive(Debug)]
pub(super) struct Call {
    /// The contract's id of the command line.
    pub(super) correlation_id: String,
    /// How the answer will be written.
    pub(super) format: Format,
}

/// Runs the command line on the streams of the process.
#[must_use]
pub fn main(argv: Vec<OsString>) -> ExitCode {
    ExitCode::from(answer(&argv, &mut Output::of_process()))
}

/// Runs the command line and returns the exit code.
pub fn answer(argv: &[OsString], output: &mut Output) -> u8 {
    let rewritten = args::rewrite(argv);
    let verb = || args::verb(&rewritten);
    let format = if args::has_switch(&rewritten, "--json") { Format::Json } else { Format::Text };
    let call = Call { correlation_id: correlation_id(argv), format };
    let written = if args::has_switch(&rewritten, "--explain") {
        output.data(&verb().1).map(|()| 0)
    } else {
        match Cli::try_parse_from(&rewritten) {
            Ok(cli) => {
                let result = dispatch(cli, &call);
                write_result(result, &|| verb().0, &call, output)
            }
            Err(error) => write_usage_error(&error, &verb().0, &call, output),
        }
    };
    written.unwrap_or_else(|error| {
        // Where stderr is gone too, the exit code says it alone.
        let told = output.talk(&format!("{} error: write the answer: {error}", verb().0));
        told.map_or(ErrorCode::IoFailure.exit(), |()| ErrorCode::IoFailure.exit())
    })
}

/// Calls the verb.
fn dispatch(cli: Cli, call: &Call) -> Result<Answer, CliError> {
    let Some(command) = cli.command else { return version::version() };
    if cli.version {
        return version::version();
    }
    match command {
        Command::Agent(agent::AgentCommand::Run(args)) => agent::run(&args),
        Command::Approve(args) => approve::approve(args),
        Command::Demo => demo::demo(),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Exec(args) => exec::exec(&args, call.format == Format::Json),
        Command::Gate(GateCommand::Eval(args)) => gate::eval(&args, call),
        Command::Guard(guard::GuardCommand::Pack(args)) => guard::pack(&args),
        Command::Guard(guard::GuardCommand::Verify(args)) => guard::verify(args),
        Command::Incident(guard::IncidentCommand::Pack(args)) => guard::incident(&args),
        Command::Keys(KeysCommand::Init(args)) => keys::init(&args),
        Command::Migrate(args) => migrate::migrate(&args),
        Command::Keys(KeysCommand::Rotate(args)) => keys::rotate(&args),
        Command::Keys(KeysCommand::Verify(args)) => keys::verify(args),
        Command::Policy(PolicyCommand::Fmt(args)) => policy_fmt::fmt(&args),
        Command::Policy(PolicyCommand::Init(args)) => policy::init(&args),
        Command::Policy(PolicyCommand::Simulate(args)) => policy_simulate::simulate(&args),
        Command::Policy(PolicyCommand::Test(args)) => policy::test(&args),
        Command::Policy(PolicyCommand::Validate(args)) => policy::validate(&args),
        Command::Report(report::ReportCommand::Top(args)) => report::top(&args),
        Command::Run(RunCommand::Diff(args)) => run::diff(&args),
        Command::Regress(command) => regress::regress(&command),
        Command::Run(RunCommand::Inspect(args)) => run::inspect(&args),
        Command::Run(RunCommand::Receipt(args)) => run::receipt(&args),
        Command::Run(RunCommand::Record(args)) => run::record(&args),
        Command::Run(RunCommand::Reduce(args)) => run::reduce(&args),
        Command::Run(RunCommand::Replay(args)) => run::replay(&args),
        Command::Scout(scout::ScoutCommand::Diff(args)) => inventory::diff(&args),
        Command::Scout(scout::ScoutCommand::Snapshot(args)) => inventory::snapshot(&args),
        Command::Scout(scout::ScoutCommand::Signal(args)) => scout::signal(&args),
        Command::Run(RunCommand::Seal(args)) => run_seal::seal(&args),
        Command::Trace(TraceCommand::Verify(args)) => trace::verify(args),
        Command::Verify(args) => verify::verify(args),
        Command::Version => version::version(),
        Command::Why(args) => why::why(&args),
    }
}

fn write_result(
    result: Result<Answer, CliError>,
    verb: &dyn Fn() -> String,
    call: &Call,
    output: &mut Output,
) -> std::io::Result<u8> {
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => {
            write_error(&error, None, &verb(), call, output)?;
            return Ok(error.code.exit());
        }
    };
    let exit = answer.exit;
    match call.format {
        Format::Json => write_json(answer, call, output)?,
        Format::Text => {
            for warning in &answer.warnings {
                output.talk(&format!("warning: {warning}"))?;
            }
            output.data(&answer.text)?;
            for line in &answer.talk {
                output.talk(line)?;
            }
            if let Some(error) = &answer.failure {
                write_error(error, None, &verb(), call, output)?;
            }
        }
    }
    Ok(exit)
}

fn write_json(answer: Answer, call: &Call, output: &mut Output) -> std::io::Result<()> {
    let Answer { mut fields, failure, warnings, .. } = answer;
    if fields.is_empty() && failure.is_none() {
        return Ok(());
    }
    if !warnings.is_empty() {
        fields.insert("warnings".to_owned(), warnings.into());
    }
    output.json(&envelope(fields, &call.correlation_id, failure.as_ref()))
}

/// Writes a failure: the envelope on stdout, or one line with its hint on stderr.
fn write_error(
    error: &CliError,
    usage: Option<&str>,
    verb: &str,
    call: &Call,
    output: &mut Output,
) -> std::io::Result<()> {
    if call.format == Format::Json {
        return output.json(&envelope(serde_json::Map::new(), &call.correlation_id, Some(error)));
    }
    let space = if verb.is_empty() { "" } else { " " };
    output.talk(&format!("{verb}{space}error: {}", error.text()))?;
    let usage = usage.unwrap_or_default();
    if usage.is_empty() || !error.hints.is_empty() {
        output.talk(&format!("hint: {}", error.hint_text()))?;
    }
    output.talk(usage)
}

fn write_usage_error(
    error: &clap::Error,
    verb: &str,
    call: &Call,
    output: &mut Output,
) -> std::io::Result<u8> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return output.data(&error.render().to_string()).map(|()| 0);
    }
    let (error, usage) = usage_error(error, verb);
    write_error(&error, Some(&usage), verb, call, output)?;
    Ok(error.code.exit())
}

/// Makes one line of what clap says in several, and its usage text.
fn usage_error(error: &clap::Error, verb: &str) -> (CliError, String) {
    let rendered = error.render().to_string();
    let mut message = String::new();
    let mut usage = String::new();
    let mut hints = Vec::new();
    for paragraph in rendered.split("\n\n") {
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(text) = line.strip_prefix("error: ") {
            text.clone_into(&mut message);
        } else if let Some(text) = line.strip_prefix("tip: ") {
            hints.push(text.to_owned());
        } else if line.starts_with("Usage: ") {
            usage = line.replacen("Usage: ", "usage: ", 1);
        }
    }
    if let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidSubcommand))
    {
        let space = if verb.is_empty() { "" } else { " " };
        message = format!("unknown command: {verb}{space}{word}");
    } else if message.is_empty() {
        "a command is missing".clone_into(&mut message);
    }
    if verb == "exec"
        && matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument)
    {
        hints.push("the program and its arguments stand after --: gait exec -- PROGRAM ARGUMENTS".to_owned());
    }
    let mut cli_error = CliError::input(message);
    cli_error.hints = hints;
    (cli_error, usage)
}
