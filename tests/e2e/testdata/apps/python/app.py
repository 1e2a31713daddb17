import os

from flask import Flask

app = Flask(__name__)


@app.route("/")
def index():
    return f"python in {os.getcwd()}\n"


app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
