import { render } from "preact";
import { App } from "./app";
import { apply, theme } from "./lib/theme";

apply(theme.value);
const root = document.getElementById("app");
if (root) {
  root.textContent = "";
  render(<App />, root);
}
