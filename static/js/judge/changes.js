// What was taken out and what was put in between a response and its correction, word by word.
import { common } from "./diff.js";

const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;
const words = (text) => (segmenter ? [...segmenter.segment(text)].map((part) => part.segment) : text.match(/\s+|[^\s]+/g) || []);

// [[kind, text], …] in order; kind is "same", "out" or "in".
export function changes(before, after) {
  const a = words(before), b = words(after);
  const [inA, inB] = common(a, b);
  const runs = [];
  const put = (kind, text) => {
    if (runs.at(-1)?.[0] === kind) runs.at(-1)[1] += text;
    else runs.push([kind, text]);
  };
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && !inA[i]) put("out", a[i++]);
    else if (j < b.length && !inB[j]) put("in", b[j++]);
    else { put("same", a[i++]); j += 1; }
  }
  return readable(runs);
}

// Neighbouring changes with only spaces between them read as one: first all that went, then all that came.
function readable(runs) {
  const told = [];
  let out = "", into = "";
  const flush = () => {
    if (out) told.push(["out", out]);
    if (into) told.push(["in", into]);
    out = into = "";
  };
  runs.forEach(([kind, text], at) => {
    if (kind === "out") out += text;
    else if (kind === "in") into += text;
    else if ((out || into) && at < runs.length - 1 && /^\s+$/.test(text)) { out += text; into += text; }
    else { flush(); told.push([kind, text]); }
  });
  flush();
  return told;
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
