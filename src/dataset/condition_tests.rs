//! Conditions against an evaluator that knows no text.

use proptest::prelude::*;

use super::*;

const CLASSES: [&str; 4] = ["Lung nodule", "Emphysema", "x-ray/CT 2", "and (so) on"];

fn classes() -> Vec<String> {
    CLASSES.map(str::to_owned).to_vec()
}

fn holds(text: &str, labels: [f32; 4]) -> bool {
    text.parse::<Condition>().unwrap().bind(&classes()).unwrap().holds(&labels)
}

fn message(text: &str) -> String {
    match text.parse::<Condition>() {
        Ok(condition) => condition.bind(&classes()).unwrap_err(),
        Err(message) => message,
    }
}

#[test]
fn names_and_precedence() {
    let labels = [1.0, 0.0, 0.1, 3.0];
    for (text, expected) in [
        ("Lung nodule == 1", true),
        ("Lung   nodule==1", true),
        ("'Lung nodule' != 1", false),
        ("1 == \"Lung nodule\"", true),
        ("`and (so) on` >= 3", true),
        ("x-ray/CT 2 == 0.1", true),
        ("Emphysema < -1e-3", false),
        ("Lung nodule > Emphysema", true),
        ("not Emphysema == 1 and Lung nodule == 0", false),
        ("not (Emphysema == 1 and Lung nodule == 0)", true),
        ("Lung nodule == 1 or Emphysema == 1 and Emphysema == 2", true),
        ("(Lung nodule == 1 OR Emphysema == 1) AND Emphysema == 2", false),
        ("not not Lung nodule <= 1.", true),
    ] {
        assert_eq!(holds(text, labels), expected, "{text}");
    }
}

#[test]
fn mistakes_are_pointed_at() {
    let arrow = |text: &str| {
        let message = message(text);
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines[1], format!("  {text}"));
        lines[2].find('^').unwrap() - 2
    };
    for (text, at, what) in [
        ("Lung nodule", 11, "expected a comparison"),
        ("Lung nodule = 1", 12, "equality is =="),
        ("Lung nodule == ", 15, "expected the name of a class or a number"),
        ("Lung nodule == 1 Emphysema == 0", 27, "'and', 'or' or the end"),
        ("(Lung nodule == 1", 17, "')'"),
        ("Lung nodule == 1)", 16, "'and', 'or' or the end"),
        ("Emphysema == 1 or lung nodule == 1", 18, "the classes are: Lung nodule, Emphysema,"),
        ("lung nodul == 1", 0, "no class 'lung nodul' (did you mean 'Lung nodule'?); the classes are: Lung"),
        ("Nodule == 1", 0, "(did you mean 'Lung nodule'?)"),
        ("Empyhsema == 1", 0, "(did you mean 'Emphysema'?)"),
        ("Fracture == 1", 0, "no class 'Fracture'; the classes"),
        ("'Lung nodule == 1", 0, "not closed"),
        ("and == 1", 0, "expected the name"),
        ("Emphysema == 1x", 13, "needs quotes"),
        ("", 0, "expected the name"),
    ] {
        let message = message(text);
        assert!(message.contains(what), "{text}: {message}");
        assert_eq!(arrow(text), at, "{message}");
    }
    assert!(message(&"not ".repeat(100_000)).contains("within each other"));
    assert!(message(&"(".repeat(100_000)).contains("within each other"));
    let twice = ["a".to_owned(), "a".to_owned()];
    assert!("a == 1".parse::<Condition>().unwrap().bind(&twice).unwrap_err().contains("twice"));
}

/// A condition as the evaluator knows it.
#[derive(Clone, Debug)]
enum Tree {
    Compare(usize, &'static str, f32),
    Not(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
}

impl Tree {
    fn holds(&self, labels: &[f32]) -> bool {
        match self {
            Self::Compare(at, sign, value) => {
                let order = labels[*at].partial_cmp(value).unwrap();
                match *sign {
                    "==" => order.is_eq(),
                    "!=" => order.is_ne(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                }
            }
            Self::Not(tree) => !tree.holds(labels),
            Self::And(one, other) => one.holds(labels) && other.holds(labels),
            Self::Or(one, other) => one.holds(labels) || other.holds(labels),
        }
    }

    /// With the parentheses that are needed, where `above` is how tightly what is around binds.
    fn text(&self, above: u8) -> String {
        let (binds, text) = match self {
            Self::Compare(3, sign, value) => (3, format!("'{}'{sign}{value}", CLASSES[3])),
            Self::Compare(at, sign, value) => (3, format!("{} {sign} {value}", CLASSES[*at])),
            Self::Not(tree) => (2, format!("not {}", tree.text(2))),
            Self::And(one, other) => (1, format!("{} and {}", one.text(1), other.text(1))),
            Self::Or(one, other) => (0, format!("{} or {}", one.text(0), other.text(0))),
        };
        if binds < above { format!("( {text})") } else { text }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let signs = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let values = prop::sample::select(vec![-1.0f32, 0.0, 0.1, 1.0, 2.5]);
    let leaf = (0..4usize, signs, values).prop_map(|(at, sign, value)| Tree::Compare(at, sign, value));
    leaf.prop_recursive(6, 40, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            inner.prop_map(|tree| Tree::Not(tree.into())),
            pair.clone().prop_map(|(one, other)| Tree::And(one.into(), other.into())),
            pair.prop_map(|(one, other)| Tree::Or(one.into(), other.into())),
        ]
    })
}

proptest! {
    #[test]
    fn means_what_it_says(tree in trees(), labels in prop::array::uniform4(prop::sample::select(vec![-1.0f32, 0.0, 0.1, 1.0]))) {
        prop_assert_eq!(holds(&tree.text(0), labels), tree.holds(&labels), "{}", tree.text(0));
    }

    #[test]
    fn no_text_panics(text in "[ a-cLn1.=<>!()'\"éßandort-]{0,30}") {
        if let Ok(condition) = text.parse::<Condition>() {
            let _ = condition.bind(&classes());
        }
    }
}
