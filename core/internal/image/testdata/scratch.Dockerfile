FROM scratch
COPY a /x
ADD d /d/
COPY <<T /t
text
T
WORKDIR /w
WORKDIR /w
CMD ["/x"]
