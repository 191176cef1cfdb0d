// What was taken out and what was put in between two texts, word by word.
const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;
const words = (text) => (segmenter ? [...segmenter.segment(text)].map((part) => part.segment) : text.match(/\s+|[^\s]+/g) || []);

const MOST_CELLS = 4e6; // Beyond it (about 2,000 changed words on each side) the middle is one change.

// [[kind, text], …] in order; kind is "same", "out" or "in".
export function changes(before, after) {
  const a = words(before), b = words(after);
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const runs = [];
  const put = (kind, text) => {
    if (!text) return;
    if (runs.length && runs.at(-1)[0] === kind) runs.at(-1)[1] += text;
    else runs.push([kind, text]);
  };
  put("same", a.slice(0, head).join(""));
  const x = a.slice(head, a.length - tail), y = b.slice(head, b.length - tail);
  if (x.length * y.length > MOST_CELLS) {
    put("out", x.join(""));
    put("in", y.join(""));
  } else {
    for (const [kind, text] of middle(x, y)) put(kind, text);
  }
  put("same", a.slice(a.length - tail).join(""));
  return runs;
}

// The longest common subsequence by the textbook's table, read from its corner.
function middle(x, y) {
  const width = y.length + 1;
  const table = new Uint32Array((x.length + 1) * width);
  for (let i = x.length - 1; i >= 0; i -= 1)
    for (let j = y.length - 1; j >= 0; j -= 1)
      table[i * width + j] = x[i] === y[j]
        ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
  const out = [];
  let i = 0, j = 0;
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) { out.push(["same", x[i]]); i += 1; j += 1; }
    else if (j >= y.length || (i < x.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) { out.push(["out", x[i]]); i += 1; }
    else { out.push(["in", y[j]]); j += 1; }
  }
  return out;
}

// The same as nodes to show: <del> and <ins>, so that it reads without colour too.
export function shownChanges(before, after) {
  return changes(before, after).map(([kind, text]) => {
    if (kind === "same") return document.createTextNode(text);
    const mark = document.createElement(kind === "out" ? "del" : "ins");
    mark.textContent = text;
    return mark;
  });
}
