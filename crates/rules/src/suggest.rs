//! Names that a misspelt one may have meant.

/// `; did you mean \`x\`?`, or nothing.
pub(crate) fn did_you_mean<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let close = |known: &'n str| {
        let distance = distance(&name.to_lowercase(), &known.to_lowercase());
        (distance <= 1 + name.len() / 4).then_some((distance, known))
    };
    let best = known.into_iter().filter_map(close).min_by_key(|(distance, known)| (*distance, *known));
    best.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"))
}

/// Levenshtein's distance of two short names; of long ones, how much their lengths differ.
fn distance(one: &str, other: &str) -> usize {
    const LONGEST: usize = 64;
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len() > LONGEST || other.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// Some of a list of names, for a message.
pub(crate) fn some_of<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    names.dedup();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let list = names.join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_suggested_and_far_ones_are_not() {
        let known = ["severity", "sequence", "title"];
        assert_eq!(did_you_mean("severty", known), "; did you mean `severity`?");
        assert_eq!(did_you_mean("Title", known), "; did you mean `title`?");
        assert_eq!(did_you_mean("colour", known), "");
        assert_eq!(did_you_mean("", known), "");
    }
}
