// The time that is left, on the page of who is signed in. All windows of a browser share one user
// session, so they tell each other: when one begins it anew, when one is signed out.

const clock = document.querySelector("#clock");
const windows = new BroadcastChannel("login");
let end = 0; // milliseconds since 1970; 0 is signed out

function tick() {
  const left = Math.max(0, Math.ceil((end - Date.now()) / 1000));
  clock.textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  const soon = left <= 60;
  if (soon !== clock.classList.contains("soon")) {
    clock.classList.toggle("soon", soon);
    document.querySelector("#soon").textContent = soon ? "Less than a minute left." : "";
  }
  if (left === 0) {
    clearInterval(ticking);
    location.replace(end ? "/login?over=1" : "/login");
  }
}

let ticking;
if (clock) {
  end = Date.now() + document.body.dataset.seconds * 1000;
  ticking = setInterval(tick, 250);
  tick();
  windows.onmessage = ({ data }) => {
    end = data;
    tick();
  };
}
windows.postMessage(end);

// After a wrong password, that is what to enter next.
if (document.querySelector("#fault")?.textContent) document.querySelector("#password").focus();
