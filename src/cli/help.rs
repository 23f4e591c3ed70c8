//! The help of all commands, made of their definitions: a command's own arguments first, an example, headings, and the
//! flags of the data set, most of which only `--help` lists.

use clap::{Arg, ArgAction, Args, Command, ValueHint};

use super::DatasetArgs;
use super::headings::{GENERAL, INPUT, OUTPUT, PERFORMANCE, SELECTION, VOLUME};
use super::loudness::Loudness;
use super::storage::StorageArgs;

/// The widest line, in characters, on a terminal that is wider.
const WIDTH: usize = 100;

/// The data set's flags below other headings than [`INPUT`].
const HEADINGS: [(&str, &[&str]); 3] = [
    (SELECTION, &["condition", "studies", "exclude", "limit", "test_mode", "strict"]),
    (
        VOLUME,
        &[
            "volume",
            "dialect",
            "rescale",
            "axes",
            "orientation",
            "resample",
            "spacing",
            "shape",
            "hu_range",
            "pad_value",
            "also_pad",
            "output_dtype",
            "window",
            "overflow",
        ],
    ),
    (OUTPUT, &["samples_per_shard", "format", "labels_empty"]),
];

/// The command that takes a ctwds.toml only where the user names it, as what it removes cannot be had again; and what
/// its help says of that flag.
pub(super) const NEVER_FINDS: &str = "reclaim";
const DATASET_TO_NAME: &str = "File with these flags, and others of the commands, as keys (data_folder = \"npz\"), such \
    as ctwds.toml; its paths start at its folder. Flags and CTWDS_* variables win over it [default: none, also where a \
    ctwds.toml is here]";

/// The data set's flags that `-h` lists as well: with them most data sets are named.
const SHORT: [&str; 5] = ["dataset", "data_folder", "reports_file", "meta_file", "labels_file"];

/// Examples of each command, by the name that follows `ctwds-fs`: where the data set stands in a ctwds.toml, and one
/// that names it by flags. They are short enough for 80 columns.
const EXAMPLES: [(&str, &[&str]); 22] = [
    ("", &["ctwds-fs demo"]),
    ("init", &["ctwds-fs init /data/ct", "ctwds-fs init --yes --output ct.toml /data/ct    # in a script"]),
    ("plan", &["ctwds-fs plan    # beside ctwds.toml", "ctwds-fs plan --data-folder npz --labels-file labels.csv"]),
    (
        "mount",
        &[
            "ctwds-fs mount shards    # beside ctwds.toml",
            "ctwds-fs mount --data-folder npz --labels-file labels.csv shards",
        ],
    ),
    (
        "run",
        &[
            "ctwds-fs run --at shards -- python train.py    # beside ctwds.toml",
            "ctwds-fs run --data-folder npz --at shards -- python train.py",
        ],
    ),
    (
        "materialize",
        &[
            "ctwds-fs materialize --output-dir out    # beside ctwds.toml",
            "ctwds-fs materialize --data-folder npz --output-dir out",
        ],
    ),
    (
        "cat",
        &["ctwds-fs cat 12 | tar -t    # beside ctwds.toml", "ctwds-fs cat --data-folder npz 12 > shard-000012.tar"],
    ),
    ("manifest", &["ctwds-fs manifest merge shards"]),
    ("manifest merge", &["ctwds-fs manifest merge shards"]),
    (
        "manifest rebuild",
        &[
            "ctwds-fs manifest rebuild shards    # beside ctwds.toml",
            "ctwds-fs manifest rebuild --data-folder npz shards",
        ],
    ),
    ("cache", &["ctwds-fs cache ls /scratch/ctwds"]),
    ("cache ls", &["ctwds-fs cache ls /scratch/ctwds"]),
    ("cache clear", &["ctwds-fs cache clear /scratch/ctwds"]),
    ("status", &["ctwds-fs status shards"]),
    ("unmount", &["ctwds-fs unmount shards"]),
    (
        "verify",
        &[
            "ctwds-fs verify --shards shards    # beside ctwds.toml",
            "ctwds-fs verify --shards shards --data-folder npz",
            "ctwds-fs verify --shards shards --integrity    # quick: reads no source",
        ],
    ),
    (
        "report",
        &["ctwds-fs report    # beside ctwds.toml", "ctwds-fs report --data-folder npz --labels-file labels.csv"],
    ),
    ("reclaim", &["ctwds-fs reclaim --dataset ctwds.toml --shards shards"]),
    ("demo", &["ctwds-fs demo /tmp/ctwds-demo"]),
    ("bench", &["ctwds-fs bench    # beside ctwds.toml", "ctwds-fs bench --data-folder npz"]),
    ("completions", &["ctwds-fs completions zsh > ~/.zfunc/_ctwds-fs"]),
    ("man", &["ctwds-fs man ~/.local/share/man/man1"]),
];

/// The examples of a command, whose `name` is what follows that of the program: "", "plan", "manifest merge".
pub fn examples(name: &str) -> &'static [&'static str] {
    EXAMPLES.iter().find(|(command, _)| *command == name).map_or(&[], |(_, examples)| examples)
}

/// A command whose help is arranged, with its subcommands.
pub(super) fn arrange(root: Command) -> Command {
    let root = with_help(root, "").max_term_width(WIDTH);
    root.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        arranged(command, &name).mut_subcommands(|deeper| {
            let name = format!("{name} {}", deeper.get_name());
            arranged(deeper, &name)
        })
    })
}

fn arranged(command: Command, name: &str) -> Command {
    let (of_dataset, of_storage) =
        (DatasetArgs::augment_args(Command::new("")), StorageArgs::augment_args(Command::new("")));
    let ids: Vec<&str> = of_dataset.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    let storage: Vec<&str> = of_storage.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    let has_storage = command.get_arguments().any(|arg| arg.get_id() == storage[0]);
    let hidden = ids.len() - SHORT.len() + if has_storage { storage.len() } else { 0 };
    let has_dataset = command.get_arguments().any(|arg| arg.get_id() == "dataset");
    let command = command.mut_args(|arg| {
        let is_of_storage = storage.contains(&arg.get_id().as_str());
        let arg = hinted(arg).hide_short_help(is_of_storage);
        let Some(id) = ids.iter().find(|id| has_dataset && arg.get_id() == **id) else { return arg };
        let heading = HEADINGS.iter().find(|(_, ids)| ids.contains(id)).map_or(INPUT, |(heading, _)| heading);
        let arg = if *id == "dataset" && name == NEVER_FINDS { arg.help(DATASET_TO_NAME) } else { arg };
        arg.help_heading(heading).hide_short_help(!SHORT.contains(id))
    });
    let command = with_help(in_order(command), name);
    if !has_dataset {
        return command;
    }
    let storage = if has_storage { ", and object storage" } else { "" };
    let more = format!("{hidden} more options, for files, samples and values{storage}: see --help");
    match command.get_after_help().map(ToString::to_string) {
        Some(after) => command.after_help(format!("{more}\n\n{after}")).after_long_help(after),
        None => command.after_help(more).after_long_help(""),
    }
}

/// The headings in the order in which every command has them, behind what stands below none.
const ORDER: [&str; 5] = [INPUT, SELECTION, VOLUME, PERFORMANCE, OUTPUT];

/// Sorts a command's arguments by their headings: the help begins a heading with its first argument. Below a heading,
/// the order stays, and headings that one command alone has stand before what costs time.
fn in_order(mut command: Command) -> Command {
    let rank = |arg: &Arg| {
        let place = |heading| ORDER.iter().position(|known| *known == heading);
        arg.get_help_heading()
            .map_or(0, |heading| 2 * place(heading).map_or(3, |at| at + 1) + usize::from(place(heading).is_none()))
    };
    let mut ids: Vec<(usize, String)> =
        command.get_arguments().map(|arg| (rank(arg), arg.get_id().to_string())).collect();
    ids.sort_by_key(|(rank, _)| *rank);
    for (_, id) in ids {
        command = command.mut_arg(id, |arg| arg); // moves it to the end
    }
    command
}

/// Tells shells which arguments are folders.
fn hinted(arg: Arg) -> Arg {
    let is_folder = |name: &clap::builder::Str| ["DIR", "FOLDER", "MOUNTPOINT"].contains(&name.as_str());
    if arg.get_value_names().is_some_and(|names| names.iter().all(is_folder)) {
        return arg.value_hint(ValueHint::DirPath);
    }
    arg
}

/// Gives a command its example, and a flag for its help among what every command has.
fn with_help(command: Command, name: &str) -> Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::Help).help_heading(GENERAL);
    let has_deeper = command.has_subcommands();
    let help = if has_deeper {
        help.help("Print help; behind a command, that of the command")
    } else {
        help.help("Print help; --help has all options").long_help("Print help; -h has the most used options")
    };
    let examples = examples(name).join("\n         "); // below each other, behind the word
    let example = if examples.is_empty() { examples } else { format!("\nExample: {examples}\n") };
    let command = match command.get_version() {
        Some(_) => {
            let version = Arg::new("version").short('V').long("version").action(ArgAction::Version);
            command.disable_version_flag(true).arg(version.help_heading(GENERAL).help("Print version"))
        }
        None => command,
    };
    command.args(Loudness::arguments()).disable_help_flag(true).arg(help).help_template(format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{example}\n{{all-args}}{{after-help}}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{command, parse};
    use super::*;

    /// All commands with their names behind that of the program.
    fn commands() -> Vec<(String, Command)> {
        let mut root = command();
        root.build();
        let mut all = vec![(String::new(), root.clone())];
        for outer in root.get_subcommands() {
            all.push((outer.get_name().to_owned(), outer.clone()));
            let deeper = outer.get_subcommands();
            all.extend(deeper.map(|deeper| (format!("{} {}", outer.get_name(), deeper.get_name()), deeper.clone())));
        }
        all.retain(|(name, command)| !name.ends_with("help") && !name.starts_with("help") && !command.is_hide_set());
        all
    }

    #[test]
    fn every_line_of_help_fits() {
        for (name, command) in commands() {
            for width in [80, 100] {
                let mut command = command.clone().term_width(width);
                for text in [command.render_help(), command.render_long_help()].map(|text| text.to_string()) {
                    let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > width).collect();
                    assert!(wide.is_empty(), "{name}, {width} columns: {wide:#?}");
                }
            }
        }
    }

    #[test]
    fn every_command_has_an_example_that_parses() {
        for (name, _) in commands() {
            assert!(!examples(&name).is_empty(), "{name} has no example");
            for example in examples(&name) {
                assert!(example.starts_with(format!("ctwds-fs {name}").trim_end()), "{example}");
                let words = || example.split(' ').take_while(|word| ![">", "|", ""].contains(word)).map(Into::into);
                assert!(parse(words()).is_ok(), "{example}: {}", parse(words()).unwrap_err());
            }
        }
        assert_eq!(EXAMPLES.len(), commands().len());
    }

    #[test]
    fn the_lines_of_lists_are_not_broken() {
        for (name, command) in commands() {
            let shown = command.clone().term_width(80).render_help().to_string();
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines().filter(|line| line.starts_with("  ")) {
                assert!(shown.lines().any(|shown| shown == line), "{name}: at 80 columns there is no line {line:?}");
            }
        }
    }

    #[test]
    fn reclaim_says_that_it_finds_no_file() {
        let text = |wanted: &str| {
            let all = commands();
            let (_, command) = all.iter().find(|(name, _)| name == wanted).unwrap();
            command.clone().term_width(100).render_help().to_string()
        };
        assert!(text("plan").contains("[default: ctwds.toml in"));
        assert!(
            !text(NEVER_FINDS).contains("[default: ctwds.toml in")
                && text(NEVER_FINDS).contains("[default: none, also")
        );
    }

    #[test]
    fn every_option_stands_below_a_heading() {
        let known = [INPUT, SELECTION, VOLUME, PERFORMANCE, OUTPUT, GENERAL, "Estimate", "Splits"];
        for (name, command) in commands() {
            for arg in command.get_arguments() {
                assert!(arg.get_help_heading().is_none_or(|heading| known.contains(&heading)), "{name}: {arg}");
            }
        }
        let of_dataset = DatasetArgs::augment_args(Command::new("data set"));
        let is_id = |id: &&str| of_dataset.get_arguments().any(|arg| arg.get_id() == *id);
        assert!(HEADINGS.iter().flat_map(|(_, ids)| *ids).chain(&SHORT).all(is_id));
    }

    #[test]
    fn headings_stand_in_one_order() {
        let order =
            [&["Arguments", "Options"][..], &ORDER[..3], &["Estimate", "Splits"], &ORDER[3..], &[GENERAL]].concat();
        for (name, command) in commands() {
            for text in [command.clone().render_help(), command.clone().render_long_help()].map(|text| text.to_string())
            {
                let headings = text.lines().filter_map(|line| line.strip_suffix(':'));
                let places: Vec<usize> =
                    headings.filter_map(|one| order.iter().position(|known| *known == one)).collect();
                assert!(places.is_sorted() && !places.is_empty(), "{name}: {places:?} in {text}");
            }
        }
    }

    #[test]
    fn a_command_begins_with_its_own_arguments() {
        let all = commands();
        let (_, materialize) = all.iter().find(|(name, _)| name == "materialize").unwrap();
        let short = materialize.clone().render_help().to_string();
        let long = materialize.clone().render_long_help().to_string();
        let at = |text: &str, what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
        assert!(at(&long, "--output-dir <DIR>") < at(&long, "\n      --data-folder"));
        assert!(at(&short, "Example:") < at(&short, "      --output-dir <DIR>"));
        assert!(!short.contains("--pad-value") && long.contains("--pad-value") && short.contains("see --help"));
    }
}
