//! The lines that differ between two short texts.

/// More pairs of lines than this are not compared one by one.
const MAX_PAIRS: usize = 4_000_000;

/// Every line of both texts, in order: `- ` if only `old` has it, `+ ` if only `new` has it, else two spaces.
pub(super) fn compared(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let common = if old.len().saturating_mul(new.len()) > MAX_PAIRS { Vec::new() } else { longest_common(&old, &new) };
    let mut lines = Vec::new();
    let (mut from_old, mut from_new) = (old.into_iter(), new.into_iter());
    for shared in common {
        lines.extend(from_old.by_ref().take_while(|line| *line != shared).map(|line| format!("- {line}")));
        lines.extend(from_new.by_ref().take_while(|line| *line != shared).map(|line| format!("+ {line}")));
        lines.push(format!("  {shared}"));
    }
    lines.extend(from_old.map(|line| format!("- {line}")));
    lines.extend(from_new.map(|line| format!("+ {line}")));
    lines
}

/// The longest sequence of lines that stands in both, by the table of all pairs of beginnings.
fn longest_common<'a>(old: &[&'a str], new: &[&str]) -> Vec<&'a str> {
    // Row by row, each cell the length of the longest sequence of the two beginnings that end there.
    let mut rows = vec![vec![0_usize; new.len() + 1]];
    for line in old {
        let above = rows.last().cloned().unwrap_or_default();
        let mut row = vec![0];
        for (other, pair) in new.iter().zip(above.windows(2)) {
            let (diagonal, up) = match pair {
                [diagonal, up] => (*diagonal, *up),
                _ => (0, 0),
            };
            let left = row.last().copied().unwrap_or_default();
            row.push(if line == other { diagonal + 1 } else { up.max(left) });
        }
        rows.push(row);
    }
    let cell = |i: usize, j: usize| rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or_default();
    let (mut i, mut j) = (old.len(), new.len());
    let mut common = Vec::new();
    while i > 0 && j > 0 {
        match (old.get(i - 1), new.get(j - 1)) {
            (Some(line), Some(other)) if line == other => {
                common.push(*line);
                (i, j) = (i - 1, j - 1);
            }
            _ if cell(i - 1, j) >= cell(i, j - 1) => i -= 1,
            _ => j -= 1,
        }
    }
    common.reverse();
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_marked() {
        let shown = compared("a\nb\nc\nd", "a\nc\nx\nd\ne");
        assert_eq!(shown, ["  a", "- b", "  c", "+ x", "  d", "+ e"]);
        assert_eq!(compared("same", "same"), ["  same"]);
        assert_eq!(compared("", "new"), ["+ new"]);
    }

    #[test]
    fn repeated_lines_are_told_apart() {
        assert_eq!(compared("x\nx\ny", "x\ny\ny"), ["  x", "- x", "  y", "+ y"]);
    }

    #[test]
    fn very_long_texts_are_shown_whole() {
        let shown = compared(&"a\n".repeat(3000), &"a\n".repeat(3000));
        assert_eq!(shown.len(), 6000);
    }
}
