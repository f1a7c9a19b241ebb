/** Make elements in one expression; text is always text, so that nothing a catalogue holds becomes markup. */

export type Child = Node | string | null;
type Value = string | number | boolean | null | ((event: Event) => void);

/** Return an element. A function is a listener ("onclick"); false and null leave an attribute out, true is an empty one. */
export function element(name: string, attributes: Readonly<Record<string, Value>> = {}, ...children: readonly Child[]): HTMLElement {
  return filled(document.createElement(name), attributes, children);
}

/** Return a text that may be broken after a slash too, where a line has no other place. */
export function breakable(text: string): Child[] {
  return text.split(/(?<=\/)/).flatMap((part, place) => (place ? [element("wbr"), part] : [part]));
}

/** Return an element of SVG. */
export function drawn(name: string, attributes: Readonly<Record<string, Value>>, ...children: readonly Child[]): SVGElement {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled<T extends Element>(made: T, attributes: Readonly<Record<string, Value>>, children: readonly Child[]): T {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Replace what an element holds; the control that had the focus, known by its `data-key`, has it again afterwards. */
export function replace(holder: Element, ...children: readonly Child[]): void {
  const active = document.activeElement;
  const key = active && holder.contains(active) ? active.getAttribute("data-key") : null;
  holder.replaceChildren(...children.filter((child) => child !== null));
  if (key !== null) holder.querySelector<HTMLElement>(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}
