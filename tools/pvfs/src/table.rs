// SPDX-License-Identifier: MIT
//! Tables as people read them: columns of one width each. Pure.

/// The lines with their cells aligned: the first `left` columns to the left, the rest to the right,
/// the last, a remark, as it is.
pub fn aligned<const COLUMNS: usize>(lines: &[[String; COLUMNS]], left: usize) -> String {
    let aligned = COLUMNS.saturating_sub(1);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..aligned).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let pad = width - cell.chars().count();
            let (before, after) = if column < left { (0, pad) } else { (pad, 0) };
            row.push_str(&format!("{:before$}{cell}{:after$}  ", "", ""));
        }
        row.push_str(line.last().map_or("", String::as_str));
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_their_titles() {
        let lines = [["A", "NUMBER", ""], ["long", "7", "remark"]];
        let lines = lines.map(|line| line.map(str::to_owned));
        assert_eq!(aligned(&lines, 1), "A     NUMBER\nlong       7  remark\n");
    }
}
